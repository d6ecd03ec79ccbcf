use alloc::string::String;

use crate::{Features, GridError, ImageView, TapError, Taps, VitSpec};

/// Why an engine could not extract features.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// Something that this engine cannot do, in its own words.
    #[error("{0}")]
    Engine(String),
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
}
