//! Errors of metrics.

use std::io;
use std::path::Path;

/// Errors of metrics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// A new run would write into another's files.
    #[error("metrics: expected a new folder, or --resume to go on, got one that holds a run: {path}")]
    Exists {
        /// The file of the other run.
        path: String,
    },
    /// A file of another program.
    #[error("metrics: expected {expected}, got {got} in line {line} of {path}")]
    Line {
        /// What a line holds.
        expected: &'static str,
        /// The value found.
        got: String,
        /// Counted from 1.
        line: usize,
        /// The file.
        path: String,
    },
    /// A step before the last one.
    #[error("metrics: expected step {least} or a later one, got {got}")]
    Step {
        /// The last step.
        least: u64,
        /// The step given.
        got: u64,
    },
    /// A name that is not allowed in the files.
    #[error(
        "metrics: expected a name of at most {most} letters, digits and \"_-./ \", not step or unix_s, got {got:?}",
        most = super::MAX_NAME_BYTES
    )]
    Name {
        /// The name, or its beginning.
        got: String,
    },
    /// Bytes that are no picture.
    #[error("metrics: expected a PNG as picture {name:?}, got something else")]
    Picture {
        /// Name of the picture.
        name: String,
    },
    /// The system refuses to read.
    #[error("cannot read {path}")]
    Read {
        /// The system's reason.
        source: io::Error,
        /// File or folder.
        path: String,
    },
    /// The system refuses to write.
    #[error("cannot write {path}")]
    Write {
        /// The system's reason.
        source: io::Error,
        /// File or folder.
        path: String,
    },
}

impl MetricsError {
    pub(super) fn read(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Read { source, path: path.display().to_string() }
    }

    pub(super) fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Write { source, path: path.display().to_string() }
    }
}
