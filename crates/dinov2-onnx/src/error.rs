//! What can go wrong in the export and in running ONNX files.

use std::io;
use std::path::Path;

use dinov2_core::TapError;
use dinov2_files::FileError;
use dinov2_weights::{ConvertError, ModelError};

/// Why a model cannot be exported, or an ONNX file cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// A weight of the model file cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The ONNX file cannot be read, or holds no DINOv2 backbone.
    #[error(transparent)]
    Import(#[from] ConvertError),
    /// The ONNX file cannot be written where it should be.
    #[error(transparent)]
    Output(#[from] FileError),
    /// A tap that the model does not have.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// What was attempted, for example `write`.
        action: &'static str,
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Something asked of the export that it cannot do: what, expected, got.
    #[error("{0}")]
    Export(String),
    /// tract refused the graph.
    #[error("tract: {problem} in {path}")]
    Tract {
        /// In tract's words, on one line.
        problem: String,
        /// The file, or the label of the model.
        path: String,
    },
}

impl OnnxError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.display().to_string(), source }
    }
}
