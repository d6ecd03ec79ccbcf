//! Errors of curation.

use std::io;
use std::path::Path;

use dinov2_core::ExtractError;
use dinov2_cpu::LoadError;
use dinov2_weights::ModelError;

use crate::data::DataError;

/// Errors of curation.
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
    /// The engine fails.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A value out of its range.
    #[error("curate: {what}: expected {expected}, got {got}")]
    Config {
        /// Which.
        what: &'static str,
        /// The valid values.
        expected: String,
        /// The value found.
        got: String,
    },
    /// A file that cannot be written or read.
    #[error("cannot access {path}")]
    File {
        /// The system's reason.
        source: io::Error,
        /// The file.
        path: String,
    },
    /// A folder with the scan of another dataset or model.
    #[error("scan: expected {expected}, got {got} (take another folder, or remove this one) in {path}")]
    OtherScan {
        /// Dataset and model of this run.
        expected: String,
        /// Those of the folder.
        got: String,
        /// The folder.
        path: String,
    },
    /// A common part of another setup, or a file that is none.
    #[error("common part: expected {expected}, got {got} in {path}")]
    Common {
        /// What is needed.
        expected: String,
        /// What is there.
        got: String,
        /// The file.
        path: String,
    },
    /// No usable image.
    #[error("curate: expected images that can be used, got none of {0}")]
    Nothing(usize),
}

impl CurateError {
    /// Adds the path to an error of the system.
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { source, path: path.display().to_string() }
    }
}
