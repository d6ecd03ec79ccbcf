//! Errors of selecting and opening an engine.

use std::error::Error;

/// Why an engine cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine cannot load the model, or its device cannot be opened.
    #[error(transparent)]
    Load(Box<dyn Error + Send + Sync>),
    /// An ONNX file for an engine that runs model files only.
    #[error(
        "backend {backend}: expected a model file, got an ONNX file (make one: dinov2-edge convert {path} -o MODEL.safetensors)"
    )]
    NeedsModelFile {
        /// The backend.
        backend: &'static str,
        /// The ONNX file.
        path: String,
    },
    /// A precision that the GPU engine does not support.
    #[error("precision: expected auto, f32, f16 or int8 for backend wgpu, got bf16")]
    GpuPrecision,
    /// A precision that the ONNX engine does not support.
    #[error(
        "precision: expected auto or f32 for backend onnx (for model files, the CPU engine supports others)"
    )]
    OnnxPrecision,
    /// A 16-bit format that the instruction set does not support.
    #[error("precision: the 16-bit format of instruction set {isa} is {format}: use --precision {format}")]
    HalfFormat {
        /// Name of the instruction set.
        isa: &'static str,
        /// Its 16-bit format.
        format: &'static str,
    },
    /// Incremental extraction with an engine other than the CPU engine.
    #[error("incremental: expected backend cpu, got {backend}")]
    Incremental {
        /// The backend.
        backend: &'static str,
    },
    /// An instruction set for an engine other than the CPU engine.
    #[error("isa: expected backend cpu, got {backend}")]
    Isa {
        /// The backend.
        backend: &'static str,
    },
    /// This build has no GPU engine.
    #[error("backend wgpu: this program was built without it (build with `--features wgpu`)")]
    WithoutWgpu,
    /// This build has no engine for ONNX files.
    #[error("backend onnx: this program was built without it (build with `--features tract`)")]
    WithoutTract,
}

impl EngineError {
    pub(super) fn load(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Load(error.into())
    }
}
