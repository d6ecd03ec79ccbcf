//! Depth maps: grey PNGs of 16 bits, whose values are distances in a unit of their own, 0 where none is known.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use dinov2_io::limits::{MAX_DECODER_BYTES, MAX_IMAGE_FILE_BYTES, check_frame_size};

use super::EvalError;

/// The distance of every pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DepthMap {
    /// `[height_px, width_px]`
    pub(super) pixels: Vec<u16>,
    pub(super) width_px: usize,
    pub(super) height_px: usize,
}

impl DepthMap {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, EvalError> {
        let wrong = |got: String| {
            EvalError::input("depth map", "a grey PNG of 16 bits", format!("{got} in {}", path.display()))
        };
        let mut encoded = Vec::new();
        let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        file.take(MAX_IMAGE_FILE_BYTES)
            .read_to_end(&mut encoded)
            .map_err(|error| wrong(error.to_string()))?;
        Self::decode(&encoded).map_err(wrong)
    }

    fn decode(encoded: &[u8]) -> Result<Self, String> {
        let broken = |error: png::DecodingError| format!("a broken one or none ({error})");
        let limits = png::Limits { bytes: MAX_DECODER_BYTES as usize };
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(encoded), limits);
        decoder.set_transformations(png::Transformations::IDENTITY);
        let mut reader = decoder.read_info().map_err(broken)?;
        let info = reader.info();
        let (color, depth) = (info.color_type, info.bit_depth);
        let (width_px, height_px) = (info.width as usize, info.height as usize);
        if (color, depth) != (png::ColorType::Grayscale, png::BitDepth::Sixteen) {
            return Err(format!("{color:?} of {} bits", depth as u8));
        }
        check_frame_size(width_px, height_px).map_err(|error| error.to_string())?;
        let mut bytes = vec![0; reader.output_buffer_size().unwrap_or_default()];
        reader.next_frame(&mut bytes).map_err(broken)?;
        let pixels = bytes.as_chunks::<2>().0.iter().map(|value| u16::from_be_bytes(*value));
        Ok(Self { pixels: pixels.take(width_px * height_px).collect(), width_px, height_px })
    }

    /// The centred part of this size; the odd pixel goes to the right and the bottom, as in `dinov2_io::Size::Native`.
    pub(super) fn centre(&self, width_px: usize, height_px: usize) -> Self {
        let (left, top) = ((self.width_px - width_px) / 2, (self.height_px - height_px) / 2);
        let lines = self.pixels.chunks_exact(self.width_px).skip(top).take(height_px);
        let pixels = lines.flat_map(|line| &line[left..left + width_px]).copied().collect();
        Self { pixels, width_px, height_px }
    }
}
