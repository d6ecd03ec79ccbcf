//! Label maps: PNG files whose values are class ids, not colours.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use crate::limits::{MAX_DECODER_BYTES, MAX_IMAGE_FILE_BYTES, check_frame_size};
use crate::{FormatError, SourceError};

/// The class of every pixel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// `[height_px, width_px]`
    pub pixels: Vec<u8>,
    /// Width in pixels.
    pub width_px: usize,
    /// Height in pixels.
    pub height_px: usize,
}

impl Labels {
    /// Reads a grey or palette PNG of at most 8 bits. Values and palette indices are taken as they are stored.
    ///
    /// # Errors
    /// A file that cannot be read, is no PNG, holds colours or 16-bit values, or is larger than [`crate::limits`] allow.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let mut encoded = Vec::new();
        let file = File::open(path).map_err(SourceError::read(path.display()))?;
        file.take(MAX_IMAGE_FILE_BYTES)
            .read_to_end(&mut encoded)
            .map_err(SourceError::read(path.display()))?;
        Self::decode(&encoded).map_err(SourceError::format(path.display()))
    }

    /// [`Self::read`] for bytes.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn decode(encoded: &[u8]) -> Result<Self, FormatError> {
        let limits = Limits { bytes: MAX_DECODER_BYTES as usize };
        let mut decoder = Decoder::new_with_limits(Cursor::new(encoded), limits);
        decoder.set_transformations(Transformations::IDENTITY);
        let mut reader = decoder.read_info().map_err(wrong)?;
        let info = reader.info();
        let (width_px, height_px) = (info.width as usize, info.height as usize);
        let (color, depth) = (info.color_type, info.bit_depth);
        if !matches!(color, ColorType::Grayscale | ColorType::Indexed) || depth == BitDepth::Sixteen {
            return Err(FormatError::Field {
                what: "label map",
                expected: "a grey or palette PNG of at most 8 bits, whose values are class ids".into(),
                got: format!("{color:?} of {} bits", depth as u8),
            });
        }
        check_frame_size(width_px, height_px)?;
        let mut packed = vec![0; reader.output_buffer_size().unwrap_or_default()];
        let line_bytes = reader.next_frame(&mut packed).map_err(wrong)?.line_size;
        let mut pixels = Vec::with_capacity(width_px * height_px);
        for line in packed.chunks_exact(line_bytes).take(height_px) {
            pixels.extend(unpacked(line, depth as usize).take(width_px));
        }
        Ok(Self { pixels, width_px, height_px })
    }

    /// The centred part of this size; the odd pixel goes to the right and the bottom, as in [`crate::Size::Native`].
    ///
    /// # Panics
    /// If the part is larger than the whole.
    #[must_use]
    pub fn centre(&self, width_px: usize, height_px: usize) -> Self {
        let (left, top) = ((self.width_px - width_px) / 2, (self.height_px - height_px) / 2);
        let lines = self.pixels.chunks_exact(self.width_px).skip(top).take(height_px);
        let pixels = lines.flat_map(|line| &line[left..left + width_px]).copied().collect();
        Self { pixels, width_px, height_px }
    }
}

/// The values of a line, `bits` (1, 2, 4 or 8) each, the highest bits first.
fn unpacked(line: &[u8], bits: usize) -> impl Iterator<Item = u8> {
    let mask = (1u16 << bits) - 1;
    line.iter().flat_map(move |&byte| {
        (0..8 / bits).map(move |index| ((u16::from(byte) >> (8 - bits * (index + 1))) & mask) as u8)
    })
}

fn wrong(error: DecodingError) -> FormatError {
    match error {
        DecodingError::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            FormatError::Io(error)
        }
        error => FormatError::Field {
            what: "label map",
            expected: "a whole PNG".into(),
            got: format!("a broken one or none ({error})"),
        },
    }
}
