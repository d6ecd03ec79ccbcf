use std::error::Error;

use dinov2_core::ExtractError;
use dinov2_heads::HeadError;
use dinov2_io::{FitError, SourceError};

/// What a sink reports: each has errors of its own.
pub type SinkFailure = Box<dyn Error + Send + Sync>;

/// Why a pipeline ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A source gave up.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A size that does not fit the model.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// A frame that does not fit the model, of a file.
    #[error("cannot use {path}")]
    Unfit {
        /// What does not fit.
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
    /// A stage took longer than the watchdog allows for one frame.
    #[error("watchdog: {stage} has been busy with one frame for more than {seconds} s")]
    Stuck {
        /// The stage.
        stage: &'static str,
        /// What the watchdog allows.
        seconds: u64,
    },
    /// A stage panicked, which is a defect of ours.
    #[error("{stage} panicked; this is a defect of this program")]
    Panicked {
        /// The stage.
        stage: &'static str,
    },
    /// The system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}
