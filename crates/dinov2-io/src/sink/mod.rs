//! Sinks: outputs for features.
//!
//! Files of features are written atomically, under the rules of `dinov2-files` for what may be replaced. A recording is
//! written in place, so that it is readable up to a crash.

mod arrays;
mod index;
mod npy;
mod output;
mod picture;
#[cfg(feature = "mcap")]
mod recording;
mod safetensors;

use std::io;
use std::str::FromStr;

use dinov2_files::{FileError, Kind};
pub use output::Output;
#[cfg(feature = "mcap")]
pub use recording::{FeatureNumbers, Recorded, Recording, RecordingMeta};

/// Format of a feature file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// All tensors and the metadata of the frame: `.safetensors`.
    #[default]
    Safetensors,
    /// The patch features alone, `[rows, cols, dim]` f32: `.npy`.
    Npy,
    /// The image beside a picture of its features: `.png`.
    Png,
}

impl Format {
    /// Extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Npy => "npy",
            Self::Png => "png",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Safetensors => Kind::Features,
            Self::Npy => Kind::Npy,
            Self::Png => Kind::Picture,
        }
    }
}

impl FromStr for Format {
    type Err = SinkError;

    fn from_str(word: &str) -> Result<Self, SinkError> {
        let all = [Self::Safetensors, Self::Npy, Self::Png];
        let found = all.into_iter().find(|format| word.eq_ignore_ascii_case(format.extension()));
        found.ok_or_else(|| SinkError::Kind(word.to_string()))
    }
}

/// Why features cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// An output of an unknown kind.
    #[error("output: expected a folder or a file ending in .safetensors, .npy or .png, got {0:?}")]
    Kind(String),
    /// One file for more than one frame.
    #[error("output: expected a folder for more than one frame, got the file {path}")]
    OneFile {
        /// The file.
        path: String,
    },
    /// A picture without any output that can be shown beside the image.
    #[error("picture: expected a map, a mask, colours or boxes of a head, got none, in {path}")]
    NoPanel {
        /// File that was to be written.
        path: String,
    },
    /// Two frames of a run with one name.
    #[error("output: expected frames of different names, got a second {name:?} in {path}")]
    SameName {
        /// The name.
        name: String,
        /// The folder.
        path: String,
    },
    /// The output must not replace the existing file, or the system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// A recording would replace a file.
    #[error("recording: expected the name of a new file, got one that exists: {path}")]
    Exists {
        /// The file.
        path: String,
    },
    /// The system refused.
    #[error("cannot write {path}")]
    Write {
        /// The system's error.
        source: io::Error,
        /// File or folder.
        path: String,
    },
}

/// Metadata of feature files besides that of the frame and the features.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureMeta {
    /// Name of the architecture, such as `ViT-S/14`.
    pub model: String,
    /// File or label of the model.
    pub model_file: String,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Engine, such as `cpu`.
    pub engine: String,
    /// Precision, such as `f32`.
    pub precision: String,
    /// Anything else, by key.
    pub extra: Vec<(String, String)>,
}
