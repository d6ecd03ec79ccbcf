//! Errors of a pipeline.

use std::error::Error;

use dinov2_core::ExtractError;
use dinov2_heads::HeadError;
use dinov2_io::{FitError, SourceError};

/// The error of a sink. Each sink has its own type.
pub type SinkFailure = Box<dyn Error + Send + Sync>;

/// Why a pipeline failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A size that does not fit the model.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// A frame of a file cannot be fitted to the patch grid.
    #[error("cannot use {path}")]
    Unfit {
        /// The cause.
        #[source]
        reason: FitError,
        /// The file, or the name of the frame.
        path: String,
    },
    /// The engine failed.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A head failed.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// A sink failed.
    #[error(transparent)]
    Sink(SinkFailure),
    /// A worker took longer for one frame than the watchdog allows, or did not end in time.
    #[error("watchdog: {worker} has been busy with one frame for more than {seconds} s")]
    Stuck {
        /// Name of the worker: `engine`, `heads` or the name of a sink.
        worker: &'static str,
        /// The limit in seconds.
        seconds: u64,
    },
    /// A worker panicked, which is a bug of this program.
    #[error("{worker} panicked; this is a bug of this program")]
    Panicked {
        /// Name of the worker.
        worker: &'static str,
    },
    /// The system cannot start a thread.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}
