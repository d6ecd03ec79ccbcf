use std::io;
use std::path::Path;

use crate::shown;

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Something other than a regular file is there.
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
    /// The system refused.
    #[error("cannot write {path}")]
    Write {
        /// The system's error.
        source: io::Error,
        /// File or folder.
        path: String,
    },
}

impl FileError {
    /// Adds the path to the system's error.
    pub fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Write { source, path: shown(path) }
    }
}

impl From<FileError> for io::Error {
    /// The system's error where there is one, else an error of kind `Other`. The path is lost: callers add their own.
    fn from(error: FileError) -> Self {
        match error {
            FileError::Write { source, .. } => source,
            other => Self::other(other),
        }
    }
}
