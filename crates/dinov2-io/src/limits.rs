//! Caps on what comes from outside, checked before anything is allocated.

/// Longest side of an image or frame.
pub const MAX_SIDE_PX: usize = 32_768;
/// Most pixels of an image or frame: 16,384 x 16,384, 805 MB of RGB.
pub const MAX_PIXELS: usize = 1 << 28;
/// Largest encoded image file.
pub const MAX_IMAGE_FILE_BYTES: u64 = 1 << 30;
/// Most memory that an image decoder may take besides the pixels that it returns.
pub const MAX_DECODER_BYTES: u64 = 1 << 30;
/// Longest that libheif's program may take for one image, in seconds: 50 megapixels take some five.
pub const MAX_HEIF_SECONDS: u64 = 120;
/// Largest JPEG within an MJPEG stream; 8K cameras stay below 16 MiB.
pub const MAX_MJPEG_FRAME_BYTES: usize = 64 << 20;
/// Most pixels per encoded byte of a JPEG, whose decoder paints missing data grey instead of failing. A real one stays
/// below 512: no 8x8 block takes less than a bit.
pub const MAX_JPEG_PIXELS_PER_BYTE: usize = 4_096;
/// Longest header line of a y4m stream or a PPM frame; real ones stay below 200.
pub const MAX_HEADER_LINE_BYTES: usize = 4_096;
/// Most files that one folder or glob may yield.
pub const MAX_LISTED_FILES: usize = 1_000_000;
/// Largest record of a recording, packed or unpacked; chunks of others' recordings stay below 16 MiB unless one message
/// is larger, and a raw 8K image has 100 MB.
pub const MAX_RECORDING_CHUNK_BYTES: usize = 1 << 28;
/// Most chunks and single images of a recording: one takes some 100 bytes of memory.
pub const MAX_RECORDING_PARTS: usize = 1 << 23;
/// Most bytes of images of a recording that are held to bring them into the order of their times.
pub const MAX_RECORDING_HELD_BYTES: usize = 1 << 28;
/// Most bytes of a bag's `metadata.yaml`; one file of a split bag takes some 200.
pub const MAX_BAG_METADATA_BYTES: u64 = 16 << 20;

use crate::FormatError;

/// Checks a frame size against [`MAX_SIDE_PX`] and [`MAX_PIXELS`] and returns its number of pixels.
///
/// # Errors
/// A side that is zero or too long, or too many pixels.
pub fn check_frame_size(width_px: usize, height_px: usize) -> Result<usize, FormatError> {
    let sides = 1..=MAX_SIDE_PX;
    let pixels = width_px.saturating_mul(height_px);
    if sides.contains(&width_px) && sides.contains(&height_px) && pixels <= MAX_PIXELS {
        Ok(pixels)
    } else {
        Err(FormatError::Field {
            what: "frame size",
            expected: format!("sides of 1..={MAX_SIDE_PX} and at most {MAX_PIXELS} pixels"),
            got: format!("{width_px}x{height_px}"),
        })
    }
}
