use std::io;
use std::path::Path;

use crate::shown;

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Something that is no file.
    #[error("output: expected a regular file or a new name, got {got}: {path}")]
    NotRegular {
        /// What it is, such as `a device`.
        got: &'static str,
        /// The output.
        path: String,
    },
    /// The output is an input.
    #[error("output: expected another file than the inputs, got one of them: {path}")]
    Input {
        /// The output.
        path: String,
    },
    /// A file of another kind is there.
    #[error("output: expected a new name or {expected}, got {got}, which only --force replaces: {path}")]
    OtherKind {
        /// What is to be written.
        expected: &'static str,
        /// What is there.
        got: &'static str,
        /// The output.
        path: String,
    },
    /// The system refuses.
    #[error("cannot write: {reason}: {path}")]
    Write {
        /// What the system says.
        reason: io::Error,
        /// File or folder.
        path: String,
    },
}

impl FileError {
    /// Adds the path to what the system says.
    pub fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |reason| Self::Write { reason, path: shown(path) }
    }
}

impl From<FileError> for io::Error {
    /// For callers whose errors are the system's: the system's own reason where there is one.
    fn from(error: FileError) -> Self {
        match error {
            FileError::Write { reason, .. } => reason,
            other => Self::other(other),
        }
    }
}
