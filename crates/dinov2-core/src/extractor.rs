//! The trait [`Extractor`]: from images to dense features; and its errors.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::error::Error;

use crate::{Features, GridError, ImageView, TapError, Taps, VitSpec};

/// Why an engine could not extract features.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The sides of the image are not multiples of the patch size.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// A tap that the model does not have.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The image has more patches than [`crate::limits::MAX_PATCHES`].
    #[error("image of {patches} patches: expected at most {most}")]
    TooManyPatches {
        /// Patches of the image.
        patches: usize,
        /// The limit.
        most: usize,
    },
    /// The numbers of images and outputs of a batch differ.
    #[error("batch of {images} images: expected as many outputs, got {outputs}")]
    BatchLengths {
        /// Images given.
        images: usize,
        /// Outputs given.
        outputs: usize,
    },
    /// A request that the engine does not support, such as taps of an ONNX file. Repeating the call fails again.
    #[error("{0}")]
    Misuse(String),
    /// A failure of the engine, for example a lost device. Another engine may succeed.
    #[error("the {backend} engine failed")]
    Failed {
        /// [`crate::EngineFacts::backend`].
        backend: &'static str,
        /// The cause.
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl ExtractError {
    /// [`ExtractError::Failed`] with its cause: an error or a text.
    pub fn failed(backend: &'static str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed { backend, source: Arc::from(cause.into()) }
    }

    /// Checks that a batch has as many outputs as images.
    ///
    /// # Errors
    /// [`ExtractError::BatchLengths`].
    pub fn check_lengths(images: &[ImageView<'_>], out: &[Features]) -> Result<(), Self> {
        let (images, outputs) = (images.len(), out.len());
        if images == outputs { Ok(()) } else { Err(Self::BatchLengths { images, outputs }) }
    }
}

/// Extracts dense features from images.
pub trait Extractor {
    /// Shape of the loaded model.
    fn spec(&self) -> &VitSpec;

    /// Extracts the features of one frame. `image`: RGB u8, sides multiples of the patch size. Writes the final
    /// tokens and the requested `taps` into `out`, replacing its content.
    ///
    /// Buffers are sized on the first frame of a grid; later frames allocate nothing.
    ///
    /// # Errors
    /// An image whose sides are not multiples of the patch size, a tap that the model does not have, or a failure of the engine.
    fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError>;

    /// Extracts the features of several frames, `images[i]` into `out[i]`, for example of several cameras. The results equal those
    /// of [`Self::extract`] bit for bit; sizes may differ. Engines may run images of one grid together; the default implementation
    /// runs one after the other.
    ///
    /// # Errors
    /// As [`Self::extract`], or [`ExtractError::BatchLengths`]. The content of `out` is then unspecified.
    fn extract_batch(
        &mut self,
        images: &[ImageView<'_>],
        taps: &Taps,
        out: &mut [Features],
    ) -> Result<(), ExtractError> {
        ExtractError::check_lengths(images, out)?;
        images.iter().zip(out).try_for_each(|(image, out)| self.extract(*image, taps, out))
    }
}
