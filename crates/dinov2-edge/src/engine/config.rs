//! Configuration of an engine: backend, precision, threads and device.

use std::num::NonZeroUsize;
use std::str::FromStr;

use dinov2_cpu::{Incremental, Isa};

/// Configuration of an engine. The default selects the fastest engine for the model.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The engine.
    pub backend: Backend,
    /// The arithmetic.
    pub precision: Precision,
    /// Number of threads; `None` for that of [`dinov2_cpu::CpuGrant::threads`].
    pub threads: Option<NonZeroUsize>,
    /// Instruction set of the CPU engine; `None` for the best of this CPU.
    pub isa: Option<Isa>,
    /// Reuse of rows from frame to frame; CPU engine only.
    pub incremental: Option<Incremental>,
    /// Part of a GPU's name; `None` for the most capable one.
    pub gpu: Option<String>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            precision: Precision::Auto,
            threads: None,
            isa: None,
            incremental: None,
            gpu: None,
        }
    }
}

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// The fastest engine that runs the model. For a model file: the GPU engine if it was measured to be faster on this machine,
    /// otherwise the CPU engine. For an ONNX file: tract.
    Auto,
    /// The native CPU engine.
    Cpu,
    /// The GPU engine; needs the feature `wgpu`.
    Wgpu,
    /// tract, running an ONNX file or a model file exported on the fly; needs the feature `tract`.
    Onnx,
}

/// The arithmetic of the matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// The fastest precision that meets its gate for this model file: [`Precision::choose`].
    Auto,
    /// 32-bit floats throughout; reduced storage is expanded when the model is loaded.
    F32,
    /// bf16 matrices; on CPUs that support bf16.
    Bf16,
    /// f16 matrices; on CPUs and GPUs that support f16.
    F16,
    /// 8-bit matrices with dynamic scales per token; model files only.
    Int8,
}

/// A text that is not the name of a backend or precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, got {got:?}")]
pub struct ParseChoiceError {
    what: &'static str,
    expected: &'static str,
    got: String,
}

impl FromStr for Backend {
    type Err = ParseChoiceError;

    fn from_str(word: &str) -> Result<Self, ParseChoiceError> {
        match word {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "wgpu" => Ok(Self::Wgpu),
            "onnx" => Ok(Self::Onnx),
            _ => Err(ParseChoiceError {
                what: "backend",
                expected: "auto, cpu, wgpu or onnx",
                got: word.into(),
            }),
        }
    }
}

impl FromStr for Precision {
    type Err = ParseChoiceError;

    fn from_str(word: &str) -> Result<Self, ParseChoiceError> {
        match word {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::Int8),
            _ => Err(ParseChoiceError {
                what: "precision",
                expected: "auto, f32, bf16, f16 or int8 (also for int4 files)",
                got: word.into(),
            }),
        }
    }
}
