//! Borrowed images.

use crate::{GridError, PatchGrid};

/// Engines subtract this from every pixel before the patch embedding: an integer near 255 times the mean of ImageNet (124, 116, 104).
/// Otherwise the mean folded into the weights would subtract two large, nearly equal sums.
pub const PIXEL_CENTRE: u8 = 116;

/// Borrowed RGB pixels: u8, interleaved, rows without padding. `pixels: [height_px, width_px, 3]`.
#[derive(Clone, Copy, Debug)]
pub struct ImageView<'a> {
    pixels: &'a [u8],
    width_px: usize,
    height_px: usize,
}

/// A pixel slice whose length does not match the size of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image {width_px}x{height_px} RGB: expected {expected} bytes, got {got}")]
pub struct ImageError {
    /// Width.
    pub width_px: usize,
    /// Height.
    pub height_px: usize,
    /// Expected length in bytes.
    pub expected: usize,
    /// Actual length in bytes.
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
    /// A side that is 0 or not a multiple of `patch_size`.
    pub fn grid(&self, patch_size: usize) -> Result<PatchGrid, GridError> {
        PatchGrid::of_image(self.width_px, self.height_px, patch_size)
    }
}
