//! Errors of this crate. Messages say what was expected and what was found, and name the file.

use std::io;
use std::path::Path;

use dinov2_core::SpecError;
use dinov2_files::FileError;

/// Why a model file cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was attempted, `open` or `map`.
        action: &'static str,
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// Bytes that are not a valid model file: what, expected, got.
    #[error("{problem} in {path}")]
    Invalid {
        /// What is wrong.
        problem: String,
        /// The file.
        path: String,
    },
    /// A tensor that contradicts the model's shape.
    #[error("tensor {tensor:?}: expected {expected}, got {got} in {path}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What the shape of the model calls for.
        expected: String,
        /// What is there.
        got: String,
        /// The file.
        path: String,
    },
}

/// Why a checkpoint cannot be read or converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was attempted, for example `open`.
        action: &'static str,
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// A malformed or unsupported checkpoint: what, expected, got.
    #[error("{problem} in {path}")]
    Invalid {
        /// What is wrong.
        problem: String,
        /// The file.
        path: String,
    },
    /// A tensor that is missing or contradicts the shape of the model.
    #[error("tensor {tensor:?}: expected {expected}, got {got} in {path}")]
    Tensor {
        /// Canonical name of the tensor.
        tensor: String,
        /// What the shape of the model calls for.
        expected: String,
        /// What is there.
        got: String,
        /// The file.
        path: String,
    },
    /// NaN or infinity among the weights.
    #[error("tensor {tensor:?}: expected finite weights, got {value} at index {index} in {path}")]
    NotFinite {
        /// Canonical name of the tensor.
        tensor: String,
        /// Row-major position of the first such number.
        index: usize,
        /// The number.
        value: f32,
        /// The file.
        path: String,
    },
    /// The tensors make up a shape that no model can have.
    #[error("impossible shape of the model in {path}")]
    Spec {
        /// The field that is out of range.
        source: SpecError,
        /// The file.
        path: String,
    },
    /// The input is marked as a model file but cannot be opened as one.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model file cannot be written where it should be.
    #[error(transparent)]
    Output(#[from] FileError),
}

impl ConvertError {
    /// [`ConvertError::Io`] at `path`.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.display().to_string(), source }
    }

    /// [`ConvertError::Invalid`] with what, expected, got in `problem`.
    pub fn invalid(problem: impl Into<String>, path: impl Into<String>) -> Self {
        Self::Invalid { problem: problem.into(), path: path.into() }
    }
}

impl ModelError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.display().to_string(), source }
    }

    pub(crate) fn invalid(problem: impl Into<String>, path: impl Into<String>) -> Self {
        Self::Invalid { problem: problem.into(), path: path.into() }
    }
}
