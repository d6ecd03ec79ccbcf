use std::io;
use std::path::Path;

use dinov2_core::ExtractError;
use dinov2_cpu::LoadError;
use dinov2_weights::ModelError;

use crate::data::DataError;

/// Why images cannot be curated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CurateError {
    /// Sources that cannot be listed or read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A model file that is none.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model that the engine cannot run.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine's own words.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A value that makes no sense.
    #[error("curate: {what}: expected {expected}, got {got}")]
    Config {
        /// Which.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A file of ours that cannot be written or read.
    #[error("cannot access {path}")]
    File {
        /// The system's reason.
        source: io::Error,
        /// The file.
        path: String,
    },
    /// A folder with the results of something else.
    #[error("scan: expected {expected}, got {got} (take another folder, or remove this one) in {path}")]
    OtherScan {
        /// What is to be scanned now.
        expected: String,
        /// What was scanned there.
        got: String,
        /// The folder.
        path: String,
    },
    /// What images have in common, measured with something else or no such file.
    #[error("common part: expected {expected}, got {got} in {path}")]
    Common {
        /// What is needed.
        expected: String,
        /// What is there.
        got: String,
        /// The file.
        path: String,
    },
    /// Nothing is left to choose from.
    #[error("curate: expected images that can be used, got none of {0}")]
    Nothing(usize),
}

impl CurateError {
    /// Adds the path to what the system reports.
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { source, path: path.display().to_string() }
    }
}
