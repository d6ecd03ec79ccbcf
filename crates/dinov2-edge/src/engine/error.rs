use std::error::Error;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The engine cannot load the model, or its device cannot be opened.
    #[error(transparent)]
    Load(Box<dyn Error + Send + Sync>),
    /// An engine for model files was asked to run an ONNX file.
    #[error(
        "backend {backend}: expected a model file, got an ONNX file (make one: dinov2-edge convert {path} -o MODEL.safetensors)"
    )]
    NeedsModelFile {
        /// The backend.
        backend: &'static str,
        /// The ONNX file.
        path: String,
    },
    /// The GPU engine was asked for a precision that it does not have.
    #[error("precision: expected auto, f32, f16 or int8 for backend wgpu, got bf16")]
    GpuPrecision,
    /// The ONNX engine was asked for a precision that it does not have.
    #[error("precision: expected auto or f32 for backend onnx (the CPU engine has others, for model files)")]
    OnnxPrecision,
    /// The instruction set has other 16-bit floats.
    #[error("precision: the 16-bit floats of instruction set {isa} are {format}: use --precision {format}")]
    HalfFormat {
        /// Name of the instruction set.
        isa: &'static str,
        /// Name of its format.
        format: &'static str,
    },
    /// Another engine than the CPU's was asked to reuse what it computed.
    #[error("incremental: expected backend cpu, got {backend}")]
    Incremental {
        /// The backend.
        backend: &'static str,
    },
    /// Another engine than the CPU's was asked for an instruction set.
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
