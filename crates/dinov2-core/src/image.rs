use crate::{GridError, PatchGrid};

/// What engines subtract from every pixel before the patch embedding: an integer near 255 times ImageNet's mean
/// (124, 116, 104). Folding the mean into the weights alone would subtract two large, nearly equal sums.
pub const PIXEL_CENTRE: u8 = 116;

/// Borrowed RGB pixels: u8, interleaved, rows without padding. `pixels: [height_px, width_px, 3]`.
#[derive(Clone, Copy, Debug)]
pub struct ImageView<'a> {
    pixels: &'a [u8],
    width_px: usize,
    height_px: usize,
}

/// A pixel slice whose length contradicts the stated size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image {width_px}x{height_px} RGB: expected {expected} bytes, got {got}")]
pub struct ImageError {
    /// Stated width.
    pub width_px: usize,
    /// Stated height.
    pub height_px: usize,
    /// Bytes that the size calls for.
    pub expected: usize,
    /// Bytes given.
    pub got: usize,
}

impl<'a> ImageView<'a> {
    /// Views `pixels` as `[height_px, width_px, 3]`.
    ///
    /// # Errors
    /// The slice is not exactly `width_px * height_px * 3` bytes long.
    pub fn new(pixels: &'a [u8], width_px: usize, height_px: usize) -> Result<Self, ImageError> {
        let expected = width_px.saturating_mul(height_px).saturating_mul(3);
        if pixels.len() == expected {
            Ok(Self { pixels, width_px, height_px })
        } else {
            Err(ImageError { width_px, height_px, expected, got: pixels.len() })
        }
    }

    /// `[height_px, width_px, 3]`.
    pub fn pixels(&self) -> &'a [u8] {
        self.pixels
    }

    /// Width in pixels.
    pub fn width_px(&self) -> usize {
        self.width_px
    }

    /// Height in pixels.
    pub fn height_px(&self) -> usize {
        self.height_px
    }

    /// The patch grid of this image.
    ///
    /// # Errors
    /// A side that is zero or no multiple of `patch_size`.
    pub fn grid(&self, patch_size: usize) -> Result<PatchGrid, GridError> {
        PatchGrid::of_image(self.width_px, self.height_px, patch_size)
    }
}
