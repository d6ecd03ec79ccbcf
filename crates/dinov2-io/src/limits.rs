//! Limits for input from outside, checked before memory is allocated.
//!
//! ```
//! use dinov2_io::limits::check_frame_size;
//!
//! assert_eq!(check_frame_size(640, 480).unwrap(), 640 * 480);
//! assert!(check_frame_size(40_000, 1).is_err());
//! ```

/// Longest side of an image or frame.
pub const MAX_SIDE_PX: usize = 32_768;
/// Most pixels of an image or frame: 16,384 x 16,384, 805 MB of RGB.
pub const MAX_PIXELS: usize = 1 << 28;
/// Largest encoded image file.
pub const MAX_IMAGE_FILE_BYTES: u64 = 1 << 30;
/// Most memory that an image decoder may use besides the pixels that it returns.
pub const MAX_DECODER_BYTES: u64 = 1 << 30;
/// Longest run of libheif's program for one image, in seconds. 50 megapixels take about 5 s.
pub const MAX_HEIF_SECONDS: u64 = 120;
/// Largest JPEG within an MJPEG stream; 8K cameras stay below 16 MiB.
pub const MAX_MJPEG_FRAME_BYTES: usize = 64 << 20;
/// Most pixels per encoded byte of a JPEG, because its decoder paints missing data grey instead of failing. Real files stay
/// below 512: an 8x8 block takes at least one bit.
pub const MAX_JPEG_PIXELS_PER_BYTE: usize = 4_096;
/// Longest header line of a y4m stream or a PPM frame; real ones stay below 200.
pub const MAX_HEADER_LINE_BYTES: usize = 4_096;
/// Most files that one folder or glob may yield.
pub const MAX_LISTED_FILES: usize = 1_000_000;
/// Largest record of a recording, compressed or not. Chunks usually stay below 16 MiB unless one message is larger; a raw 8K
/// image has 100 MB.
pub const MAX_RECORDING_CHUNK_BYTES: usize = 1 << 28;
/// Most chunks and single images of a recording. Each takes about 100 bytes of memory.
pub const MAX_RECORDING_PARTS: usize = 1 << 23;
/// Most bytes of images of a recording that are held to sort them by time.
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
