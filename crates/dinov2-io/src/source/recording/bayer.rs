//! Colour images out of mosaics, whose pixels have one colour each.

use crate::FormatError;

use super::chunk::field;

/// Rows and columns without which a pixel has no neighbours on both sides.
const LEAST_SIDE_PX: usize = 3;

/// A mosaic of 2 x 2 pixels with two green ones on a diagonal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mosaic {
    red_row: usize,
    red_column: usize,
}

impl Mosaic {
    /// Layout and bits of a sample of an encoding such as `bayer_rggb8`. The four letters are those of the two rows, as in
    /// `sensor_msgs/image_encodings.hpp`; OpenCV names the same mosaic by its second row and column (`BayerBG`).
    pub(super) fn parse(encoding: &str) -> Option<(Self, u32)> {
        let (letters, bits) = encoding.strip_prefix("bayer_")?.split_at_checked(4)?;
        let (red_row, red_column) = match letters {
            "rggb" => (0, 0),
            "grbg" => (0, 1),
            "gbrg" => (1, 0),
            "bggr" => (1, 1),
            _ => return None,
        };
        let bits = match bits {
            "8" => 8,
            "16" => 16,
            _ => return None,
        };
        Some((Self { red_row, red_column }, bits))
    }

    /// rgb: `[height, width, 3]`, in the depth of the samples, of which `sample` gives that at a row and column, through
    /// `byte`. A missing colour is the rounded mean of its nearest two or four neighbours; the outermost rows and columns
    /// repeat the ones beside them. These are the bits of OpenCV's `cvtColor`, which cv_bridge uses.
    ///
    /// # Errors
    /// A side of less than 3 pixels.
    pub(super) fn rgb(
        self,
        (width_px, height_px): (usize, usize),
        sample: impl Fn(usize, usize) -> u32,
        byte: impl Fn(u32) -> u8,
        rgb: &mut [u8],
    ) -> Result<(), FormatError> {
        if width_px.min(height_px) < LEAST_SIDE_PX {
            let expected = format!("a mosaic with sides of at least {LEAST_SIDE_PX}");
            return Err(field("image size", expected, format!("{width_px}x{height_px}")));
        }
        for (row, line) in rgb.chunks_exact_mut(3 * width_px).enumerate() {
            let row = row.clamp(1, height_px - 2);
            for (column, pixel) in line.chunks_exact_mut(3).enumerate() {
                let column = column.clamp(1, width_px - 2);
                pixel.copy_from_slice(&self.pixel(row, column, &sample).map(&byte));
            }
        }
        Ok(())
    }

    fn pixel(self, row: usize, column: usize, sample: &impl Fn(usize, usize) -> u32) -> [u32; 3] {
        let own = sample(row, column);
        let across = sample(row, column - 1) + sample(row, column + 1);
        let along = sample(row - 1, column) + sample(row + 1, column);
        let two = |sum: u32| (sum + 1) >> 1;
        let four = |sum: u32| (sum + 2) >> 2;
        let corners = || {
            let above = sample(row - 1, column - 1) + sample(row - 1, column + 1);
            four(above + sample(row + 1, column - 1) + sample(row + 1, column + 1))
        };
        match (row % 2 == self.red_row, column % 2 == self.red_column) {
            (true, true) => [own, four(across + along), corners()],
            (true, false) => [two(across), own, two(along)],
            (false, true) => [two(along), own, two(across)],
            (false, false) => [corners(), four(across + along), own],
        }
    }
}

/// 16 bits as 8, rounded: v * 255 / 65535, as cv_bridge and image decoders scale.
pub(super) fn byte_of_16_bits(value: u32) -> u8 {
    ((value + 128) / 257).min(255) as u8
}
