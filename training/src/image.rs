//! A decoded image.

use dinov2_core::ImageView;
use dinov2_io::{FormatError, Frame, decode_still};

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels, positive.
    pub width_px: usize,
    /// Height in pixels, positive.
    pub height_px: usize,
    /// RGB u8: `[height_px, width_px, 3]`.
    pub pixels: Vec<u8>,
}

impl Image {
    /// Decodes an image file: its EXIF orientation is applied, grey becomes RGB, alpha is dropped.
    ///
    /// # Errors
    /// Bytes that are no whole image, or a larger one than [`dinov2_io::limits`] allow.
    pub fn decode(encoded: &[u8]) -> Result<Self, FormatError> {
        let mut frame = Frame::new();
        decode_still(encoded, &mut frame)?;
        Ok(Self { width_px: frame.width_px, height_px: frame.height_px, pixels: frame.pixels })
    }

    /// The pixels with their size.
    ///
    /// # Panics
    /// If the fields were set by hand and contradict each other.
    pub fn view(&self) -> ImageView<'_> {
        ImageView::new(&self.pixels, self.width_px, self.height_px).expect("pixels match the size")
    }
}
