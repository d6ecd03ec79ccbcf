//! Errors of listing, reading and loading images.

use std::io;

use dinov2_io::{FormatError, SourceError};

use crate::views::ViewError;

/// Errors of listing, reading and loading images.
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
    /// A file that cannot be decoded.
    #[error("cannot decode {path}")]
    Image {
        /// The format's rule that is broken.
        source: FormatError,
        /// Name of the sample.
        path: String,
    },
    /// An invalid archive or manifest.
    #[error("{what}: expected {expected}, got {got} in {path}")]
    Format {
        /// The kind of file.
        what: &'static str,
        /// The valid values.
        expected: String,
        /// The value found.
        got: String,
        /// The file.
        path: String,
    },
    /// A source without usable images.
    #[error("data: expected {expected}, got {got}")]
    Input {
        /// The valid values.
        expected: String,
        /// The value found.
        got: String,
    },
    /// A folder or a pattern that cannot be listed.
    #[error(transparent)]
    List(#[from] SourceError),
    /// An object store, or a shard there, that is out of reach after all retries.
    #[error("object store: {reason}: {path}")]
    Remote {
        /// The store's message.
        reason: String,
        /// The address.
        path: String,
    },
    /// A value of a [`LoaderPlan`](super::LoaderPlan) out of its range.
    #[error("loader: {what}: expected {expected}, got {got}")]
    Plan {
        /// Which of the plan's values.
        what: &'static str,
        /// The valid values.
        expected: String,
        /// The value found.
        got: String,
    },
    /// Invalid view settings.
    #[error(transparent)]
    Views(#[from] ViewError),
    /// Too many unreadable samples in a row.
    #[error("data: expected images, got {tried} samples in a row that cannot be read, the last: {last}")]
    Unreadable {
        /// How many.
        tried: usize,
        /// Why the last one could not be read.
        last: String,
    },
    /// A panic in a thread of the loader.
    #[error("loader: expected a batch, got a panic: {0}")]
    Panicked(String),
}

impl DataError {
    /// Adds the path to an error of the system.
    pub(crate) fn read(path: impl ToString) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { source, path: path.to_string() }
    }
}
