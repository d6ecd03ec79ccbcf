use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::error::Error;

use crate::{Features, GridError, ImageView, TapError, Taps, VitSpec};

/// Why an engine could not extract features.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The image does not fall into whole patches.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// A tap that the model does not have.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// A frame beyond [`crate::limits::MAX_PATCHES`].
    #[error("image of {patches} patches: expected at most {most}")]
    TooManyPatches {
        /// Patches of the image.
        patches: usize,
        /// The limit.
        most: usize,
    },
    /// A batch with more or fewer outputs than images.
    #[error("batch of {images} images: expected as many outputs, got {outputs}")]
    BatchLengths {
        /// Images given.
        images: usize,
        /// Outputs given.
        outputs: usize,
    },
    /// The engine was asked for something that it does not do, such as taps of an ONNX file. The same call fails again.
    #[error("{0}")]
    Misuse(String),
    /// The engine itself failed, for example because its device was lost. Another engine may succeed.
    #[error("the {backend} engine failed")]
    Failed {
        /// [`crate::EngineFacts::backend`].
        backend: &'static str,
        /// What failed.
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

/// An engine: turns an image into dense features.
pub trait Extractor {
    /// Shape of the loaded model.
    fn spec(&self) -> &VitSpec;

    /// Extracts the features of one frame. `image`: RGB u8, sides multiples of the patch size. Writes the final
    /// tokens and what `taps` asks for into `out`, replacing what was there.
    ///
    /// Buffers are sized on the first frame of a grid; after that nothing is allocated.
    ///
    /// # Errors
    /// An image off the patch grid, a tap that the model does not have, or a failure of the engine itself.
    fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError>;

    /// Extracts the features of several frames, `images[i]` into `out[i]`: those of several cameras, or of a video that
    /// need not be live. Each is what [`Self::extract`] makes of it, bit for bit; sizes may differ. Engines run images
    /// of one grid together where they gain by it; this default takes them one after the other.
    ///
    /// # Errors
    /// As [`Self::extract`], or `out` is not as long as `images`. What `out` then holds is unspecified.
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
