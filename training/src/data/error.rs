use std::io;

use dinov2_io::{FormatError, SourceError};

use crate::views::ViewError;

/// Why there are no images, or no batch of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The system's reason.
        source: io::Error,
        /// File or shard.
        path: String,
    },
    /// Bytes that are no image.
    #[error("cannot decode {path}")]
    Image {
        /// The format's rule that is broken.
        source: FormatError,
        /// Name of the sample.
        path: String,
    },
    /// An archive or a manifest that is none.
    #[error("{what}: expected {expected}, got {got} in {path}")]
    Format {
        /// What was being read.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
        /// The file.
        path: String,
    },
    /// A source that names nothing usable.
    #[error("data: expected {expected}, got {got}")]
    Input {
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A folder or a pattern that cannot be listed.
    #[error(transparent)]
    List(#[from] SourceError),
    /// An object store, or a shard there, that is out of reach after all retries.
    #[error("object store: {reason}: {path}")]
    Remote {
        /// What it says.
        reason: String,
        /// The address.
        path: String,
    },
    /// A way to load that makes no sense.
    #[error("loader: {what}: expected {expected}, got {got}")]
    Plan {
        /// Which of the plan's values.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// Views that make no sense.
    #[error(transparent)]
    Views(#[from] ViewError),
    /// Nothing of what was tried could be read.
    #[error("data: expected images, got {tried} samples in a row that cannot be read, the last: {last}")]
    Unreadable {
        /// How many.
        tried: usize,
        /// Why the last one could not be read.
        last: String,
    },
    /// A thread of the loader came upon a bug.
    #[error("loader: expected a batch, got a panic: {0}")]
    Panicked(String),
}

impl DataError {
    /// Adds the path to what the system reports.
    pub(crate) fn read(path: impl ToString) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { source, path: path.to_string() }
    }
}
