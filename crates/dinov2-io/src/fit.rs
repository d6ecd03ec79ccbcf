//! Fits frames to the patch grid of a model: resized as by Pillow, or cut to the centre. Pixels stay u8; normalisation is
//! part of the model's patch embedding.

use std::fmt;
use std::str::FromStr;

use dinov2_core::{Crop, ImageView, PatchGeometry, PatchGrid, limits::MAX_PATCHES};

use crate::limits::{MAX_PIXELS, MAX_SIDE_PX};
use crate::resample::Resampler;

/// Target size of frames. Parsed from `224` (short side), `518x392` (width x height) or `native`.
///
/// ```
/// use dinov2_io::Size;
///
/// let size: Size = "224".parse().unwrap();
/// assert_eq!(size.target(640, 480, 14).unwrap(), (294, 224));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Short side in pixels; the aspect is kept and both sides are rounded to the nearest multiple of the patch size.
    Short(usize),
    /// Exactly this size; the aspect may change. Both sides must be multiples of the patch size.
    Exact {
        /// Width in pixels.
        width_px: usize,
        /// Height in pixels.
        height_px: usize,
    },
    /// The largest centred part whose sides are multiples of the patch size; nothing is resampled.
    Native,
}

/// Why a frame cannot be fitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// Text that is not a [`Size`].
    #[error(
        "size: expected SHORT (224), WIDTHxHEIGHT (518x392) or native, sides of 1..={MAX_SIDE_PX}, got {0:?}"
    )]
    Syntax(String),
    /// An exact size off the patch grid.
    #[error("size: expected multiples of the patch size {patch_size}, got {width_px}x{height_px}; nearest are {}", nearest(*width_px, *height_px, *patch_size))]
    OffGrid {
        /// Width asked for.
        width_px: usize,
        /// Height asked for.
        height_px: usize,
        /// Patch side of the model.
        patch_size: usize,
    },
    /// A frame of native size that is smaller than one patch, or has no pixels.
    #[error("native size: expected at least one {patch_size}x{patch_size} patch, got {width_px}x{height_px}")]
    TooSmall {
        /// Width of the frame.
        width_px: usize,
        /// Height of the frame.
        height_px: usize,
        /// Patch side of the model.
        patch_size: usize,
    },
    /// A result beyond the limits.
    #[error(
        "size: expected sides of at most {MAX_SIDE_PX} and at most {MAX_PATCHES} patches, got {width_px}x{height_px}"
    )]
    TooLarge {
        /// Width of the result.
        width_px: usize,
        /// Height of the result.
        height_px: usize,
    },
}

fn nearest(width_px: usize, height_px: usize, patch_size: usize) -> String {
    let down = |side: usize| (side / patch_size).max(1) * patch_size;
    let up = |side: usize| side.div_ceil(patch_size) * patch_size;
    let (small, large) = ((down(width_px), down(height_px)), (up(width_px), up(height_px)));
    format!("{}x{} and {}x{}", small.0, small.1, large.0, large.1)
}

impl FromStr for Size {
    type Err = FitError;

    fn from_str(word: &str) -> Result<Self, FitError> {
        let side = |text: &str| -> Result<usize, FitError> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let side = text.parse().ok().filter(|side| digits && (1..=MAX_SIDE_PX).contains(side));
            side.ok_or_else(|| FitError::Syntax(word.to_string()))
        };
        match word.split_once(['x', 'X']) {
            _ if word.eq_ignore_ascii_case("native") => Ok(Self::Native),
            Some((width, height)) => Ok(Self::Exact { width_px: side(width)?, height_px: side(height)? }),
            None => Ok(Self::Short(side(word)?)),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(side) => write!(f, "{side}"),
            Self::Exact { width_px, height_px } => write!(f, "{width_px}x{height_px}"),
            Self::Native => f.write_str("native"),
        }
    }
}

impl Size {
    /// Target size of a frame of `width_px` x `height_px` for patches of `patch_size`, as `(width_px, height_px)`, both
    /// multiples of `patch_size`.
    ///
    /// # Errors
    /// An exact size off the patch grid, a native frame smaller than one patch, or a result beyond the limits.
    pub fn target(
        self,
        width_px: usize,
        height_px: usize,
        patch_size: usize,
    ) -> Result<(usize, usize), FitError> {
        let off_grid = |side: usize| side == 0 || !side.is_multiple_of(patch_size);
        let target = match self {
            Self::Exact { width_px, height_px } if off_grid(width_px) || off_grid(height_px) => {
                return Err(FitError::OffGrid { width_px, height_px, patch_size });
            }
            Self::Exact { width_px, height_px } => (width_px, height_px),
            Self::Native if width_px < patch_size || height_px < patch_size => {
                return Err(FitError::TooSmall { width_px, height_px, patch_size });
            }
            Self::Native => (width_px / patch_size * patch_size, height_px / patch_size * patch_size),
            Self::Short(short_px) => {
                let round =
                    |side: usize| nearest_multiple(side, short_px, width_px.min(height_px), patch_size);
                (round(width_px), round(height_px))
            }
        };
        let patches = (target.0 / patch_size).saturating_mul(target.1 / patch_size);
        let pixels = target.0.saturating_mul(target.1);
        if target.0 > MAX_SIDE_PX || target.1 > MAX_SIDE_PX || pixels > MAX_PIXELS || patches > MAX_PATCHES {
            return Err(FitError::TooLarge { width_px: target.0, height_px: target.1 });
        }
        Ok(target)
    }
}

/// `side * numerator / denominator`, rounded to the nearest positive multiple of `patch_size`, halves up.
fn nearest_multiple(side: usize, numerator: usize, denominator: usize, patch_size: usize) -> usize {
    let scaled = side as u128 * numerator as u128;
    let unit = denominator.max(1) as u128 * patch_size as u128;
    let patches = usize::try_from((2 * scaled + unit) / (2 * unit)).unwrap_or(usize::MAX);
    patches.max(1).saturating_mul(patch_size)
}

/// Fits frames to the patch grid of a model. Keeps its buffers from frame to frame.
///
/// Resampling equals `PIL.Image.resize(size, BICUBIC)` of Pillow 13 to the bit: a = -0.5, antialiased.
#[derive(Debug)]
pub struct Fit {
    size: Size,
    patch_size: usize,
    resampler: Resampler,
    fitted: Vec<u8>,
}

impl Fit {
    /// Takes the target size and the patch size of the model.
    ///
    /// # Errors
    /// An exact size off the patch grid or beyond the limits.
    ///
    /// # Panics
    /// If `patch_size` is zero.
    pub fn new(size: Size, patch_size: usize) -> Result<Self, FitError> {
        assert!(patch_size > 0, "patch size: expected a positive number, got 0");
        if let Size::Exact { width_px, height_px } = size {
            size.target(width_px, height_px, patch_size)?;
        }
        Ok(Self { size, patch_size, resampler: Resampler::default(), fitted: Vec::new() })
    }

    /// The grid of a fitted frame of this size.
    ///
    /// # Errors
    /// As [`Size::target`].
    pub fn grid(&self, width_px: usize, height_px: usize) -> Result<PatchGrid, FitError> {
        let (width, height) = self.size.target(width_px, height_px, self.patch_size)?;
        Ok(PatchGrid { rows: height / self.patch_size, cols: width / self.patch_size })
    }

    /// The part of a frame of this size that [`Self::fit`] uses: the whole frame, or the centre for [`Size::Native`].
    ///
    /// # Errors
    /// As [`Size::target`].
    pub fn crop(&self, width_px: usize, height_px: usize) -> Result<Crop, FitError> {
        let (width, height) = self.size.target(width_px, height_px, self.patch_size)?;
        Ok(if self.size == Size::Native {
            centre(width_px, height_px, width, height)
        } else {
            Crop { left_px: 0, top_px: 0, width_px, height_px }
        })
    }

    /// Where the patches of a frame of this size lie in it.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub fn geometry(&self, width_px: usize, height_px: usize) -> Result<PatchGeometry, FitError> {
        Ok(PatchGeometry::new(self.grid(width_px, height_px)?, self.crop(width_px, height_px)?))
    }

    /// Fits `image` to the grid. An image that already has the target size is returned without a copy.
    /// Allocates only when the sizes change.
    ///
    /// # Errors
    /// As [`Size::target`]; also an image without pixels.
    pub fn fit<'a>(&'a mut self, image: ImageView<'a>) -> Result<ImageView<'a>, FitError> {
        let (width, height) = self.target(image)?;
        let is_whole_rows = self.size == Size::Native && width == image.width_px();
        if is_whole_rows || (width, height) == (image.width_px(), image.height_px()) {
            let Crop { top_px: top, .. } = centre(width, image.height_px(), width, height);
            return Ok(view(&image.pixels()[top * width * 3..(top + height) * width * 3], width, height));
        }
        let Self { size, resampler, fitted, .. } = self;
        fill(*size, resampler, image, (width, height), fitted);
        Ok(view(fitted, width, height))
    }

    /// Fits `image` to the grid and replaces the content of `fitted` by the result: `[height, width, 3]`.
    /// Returns `(width, height)` in pixels. Allocates only when the sizes change. For callers that keep the result;
    /// use [`Self::fit`] otherwise.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub fn fit_into(
        &mut self,
        image: ImageView<'_>,
        fitted: &mut Vec<u8>,
    ) -> Result<(usize, usize), FitError> {
        let target = self.target(image)?;
        fill(self.size, &mut self.resampler, image, target, fitted);
        Ok(target)
    }

    /// Checks the image and returns the size of the result as `(width_px, height_px)`.
    fn target(&self, image: ImageView<'_>) -> Result<(usize, usize), FitError> {
        let (width_px, height_px, patch_size) = (image.width_px(), image.height_px(), self.patch_size);
        if width_px == 0 || height_px == 0 {
            return Err(FitError::TooSmall { width_px, height_px, patch_size });
        }
        let target = self.size.target(width_px, height_px, patch_size)?;
        // The result of the first pass of the resampling may be larger than both images.
        if target != (width_px, height_px) && target.0.saturating_mul(height_px) > MAX_PIXELS {
            return Err(FitError::TooLarge { width_px: target.0, height_px });
        }
        Ok(target)
    }
}

/// Replaces `fitted` by `image`, resampled or cut to `(width, height)`.
fn fill(
    size: Size,
    resampler: &mut Resampler,
    image: ImageView<'_>,
    (width, height): (usize, usize),
    fitted: &mut Vec<u8>,
) {
    let from = (image.width_px(), image.height_px());
    if size != Size::Native {
        return resampler.resize(image.pixels(), from, (width, height), fitted);
    }
    let Crop { left_px: left, top_px: top, .. } = centre(from.0, from.1, width, height);
    fitted.clear();
    for row in image.pixels().chunks_exact(from.0 * 3).skip(top).take(height) {
        fitted.extend_from_slice(&row[left * 3..(left + width) * 3]);
    }
}

/// The centre of an image that is `width_px` x `height_px`; the odd pixel goes to the right and the bottom.
fn centre(width_px: usize, height_px: usize, width: usize, height: usize) -> Crop {
    let (left_px, top_px) = ((width_px - width) / 2, (height_px - height) / 2);
    Crop { left_px, top_px, width_px: width, height_px: height }
}

fn view(pixels: &[u8], width: usize, height: usize) -> ImageView<'_> {
    ImageView::new(pixels, width, height).expect("fitted pixels match the fitted size")
}
