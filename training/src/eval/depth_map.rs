//! Depth maps: grey PNGs of 16 bits, whose values are distances in a unit of their own, 0 where none is known.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use dinov2_eval::DepthMap;
use dinov2_io::limits::{MAX_DECODER_BYTES, MAX_IMAGE_FILE_BYTES, check_frame_size};
use dinov2_io::{FormatError, SourceError};

use super::EvalError;

/// The expected format.
const EXPECTED: &str = "a grey PNG of 16 bits";

/// Reads a file. An unreadable file is an [`EvalError::Unreadable`]; a readable image of another kind is another error.
pub(super) fn read_depth_map(path: &Path) -> Result<DepthMap, EvalError> {
    let refused = |source| SourceError::Read { source, path: path.display().to_string() };
    let mut encoded = Vec::new();
    let file = File::open(path).map_err(refused)?;
    file.take(MAX_IMAGE_FILE_BYTES).read_to_end(&mut encoded).map_err(refused)?;
    decode(&encoded, path)
}

fn decode(encoded: &[u8], path: &Path) -> Result<DepthMap, EvalError> {
    let unreadable = |source| SourceError::Format { source, path: path.display().to_string() };
    let broken = |error: png::DecodingError| {
        let got = format!("a broken one or none ({error})");
        unreadable(FormatError::Field { what: "depth map", expected: EXPECTED.into(), got })
    };
    let limits = png::Limits { bytes: MAX_DECODER_BYTES as usize };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(encoded), limits);
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(broken)?;
    let info = reader.info();
    let (color, depth) = (info.color_type, info.bit_depth);
    let (width_px, height_px) = (info.width as usize, info.height as usize);
    if (color, depth) != (png::ColorType::Grayscale, png::BitDepth::Sixteen) {
        let got = format!("{color:?} of {} bits in {}", depth as u8, path.display());
        return Err(EvalError::input("depth map", EXPECTED, got));
    }
    check_frame_size(width_px, height_px).map_err(unreadable)?;
    let mut bytes = vec![0; reader.output_buffer_size().unwrap_or_default()];
    reader.next_frame(&mut bytes).map_err(broken)?;
    let pixels = bytes.as_chunks::<2>().0.iter().map(|value| u16::from_be_bytes(*value));
    Ok(DepthMap { pixels: pixels.take(width_px * height_px).collect(), width_px, height_px })
}
