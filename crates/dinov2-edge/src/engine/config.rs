//! What the user asks of an engine.

use std::num::NonZeroUsize;
use std::str::FromStr;

use dinov2_cpu::{Incremental, Isa};

/// What the user asks of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which engine.
    pub backend: Backend,
    /// Which arithmetic.
    pub precision: Precision,
    /// Threads; `None` for those of [`dinov2_cpu::CpuGrant::threads`].
    pub threads: Option<NonZeroUsize>,
    /// Instruction set of the CPU engine; `None` for the best that this CPU has.
    pub isa: Option<Isa>,
    /// Reuse from frame to frame; the CPU engine only.
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

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// The fastest that runs this model: of a model file the GPU engine where a measurement on this machine says so, else the
    /// CPU engine; of an ONNX file tract.
    Auto,
    /// The native CPU engine.
    Cpu,
    /// The GPU engine; needs the feature `wgpu`.
    Wgpu,
    /// tract, running an ONNX file or a model file exported on the fly; needs the feature `tract`.
    Onnx,
}

/// Which arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// The fastest that meets its gate for this model file on this CPU: [`Precision::choose`].
    Auto,
    /// 32-bit floats throughout; reduced storage is expanded when the model is loaded.
    F32,
    /// bf16 matrices; on CPUs whose 16-bit floats these are.
    Bf16,
    /// f16 matrices; on CPUs whose 16-bit floats these are, and on GPUs that have them.
    F16,
    /// 8-bit matrices with dynamic scales per token; model files only.
    Int8,
}

/// The text names no backend or precision.
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
                expected: "auto, f32, bf16, f16 or int8 (what int4 files run in)",
                got: word.into(),
            }),
        }
    }
}
