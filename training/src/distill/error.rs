//! Errors of a run.

use std::path::PathBuf;

use dinov2_weights::{ConvertError, ModelError};

use crate::data::DataError;
use crate::loss::StandardiseError;
use crate::parallel::ParallelError;
use crate::prune::PruneError;
use crate::teacher::TeacherError;
use crate::vit::ParameterError;

/// Errors that end a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistillError {
    /// Number of images.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The teacher.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// The standardisation of its features.
    #[error(transparent)]
    Standardise(#[from] StandardiseError),
    /// A model file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The student's first weights.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// A model that cannot be cut down to the student's shape.
    #[error(transparent)]
    Prune(#[from] Box<PruneError>),
    /// The result cannot be written.
    #[error(transparent)]
    Export(#[from] ConvertError),
    /// The device.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The other processes.
    #[error(transparent)]
    Parallel(#[from] ParallelError),
    /// An invalid shape or recipe of the student.
    #[error("student: {0}")]
    Student(String),
    /// A step that does not fit into memory.
    #[error(
        "memory: expected some {:.1} GB for a step of stage {stage}, got {:.1} GB that are free; {advice}",
        *needed as f64 / 1e9, *free as f64 / 1e9
    )]
    Memory {
        /// Stage, counted from 1.
        stage: usize,
        /// Bytes of a step.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// What would fit.
        advice: String,
    },
    /// A loss or gradient that is not finite.
    #[error(
        "step {step}: expected a finite loss and gradient, got {loss} and a norm of {gradient_norm}; the batch lies in {}",
        batch.display()
    )]
    Loss {
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
        /// Norm of the gradient.
        gradient_norm: f64,
        /// Folder with the batch.
        batch: PathBuf,
    },
    /// A file of the run.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A damaged checkpoint, or one of another run.
    #[error("checkpoint: {problem}: {}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl DistillError {
    pub(super) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
