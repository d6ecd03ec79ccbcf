//! Errors of evaluation.

use dinov2_core::ExtractError;
use dinov2_cpu::LoadError;
use dinov2_eval::TrackingError;
use dinov2_heads::{LabelError, ProbeError, RidgeError, UpsampleError};
use dinov2_io::{FitError, SourceError};
use dinov2_weights::ModelError;

/// Errors of evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Data or settings that a task cannot use.
    #[error("{what}: expected {expected}, got {got}")]
    Input {
        /// The task, or what it reads.
        what: &'static str,
        /// The valid values.
        expected: String,
        /// What it is; a path last.
        got: String,
    },
    /// An image, a map or a folder that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SourceError),
    /// A label map with an unknown class.
    #[error("label map {path}")]
    Label {
        /// The label.
        source: LabelError,
        /// The label map.
        path: String,
    },
    /// An image that cannot be resized to the task's size.
    #[error("cannot resize {path}")]
    Fit {
        /// The size.
        source: FitError,
        /// The image, or the size asked for.
        path: String,
    },
    /// An invalid model file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Weights that the engine cannot use.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine fails.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A linear classifier that cannot be fitted.
    #[error("linear probe")]
    Probe(#[from] ProbeError),
    /// A regression that cannot be fitted.
    #[error("depth probe")]
    Ridge(#[from] RidgeError),
    /// Labels that cannot be propagated.
    #[error("sequence, at {path}")]
    Tracking {
        /// What is wrong.
        source: TrackingError,
        /// The label map.
        path: String,
    },
    /// A map of another shape than its grid.
    #[error(transparent)]
    Upsample(#[from] UpsampleError),
}

impl EvalError {
    pub(super) fn input(what: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Input { what, expected: expected.into(), got: got.into() }
    }
}
