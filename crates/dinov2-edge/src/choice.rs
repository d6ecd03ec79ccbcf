//! What the user may ask for: backend and precision.

use std::str::FromStr;

use dinov2_cpu::{CpuPrecision, Isa};
use dinov2_kernels::gemm_half::HalfFormat;
use dinov2_weights::{Model, Quantization};
#[cfg(feature = "wgpu")]
use dinov2_wgpu::GpuPrecision;

use crate::EngineError;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A word that names no backend or precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, got {got:?}")]
pub struct ChoiceError {
    what: &'static str,
    expected: &'static str,
    got: String,
}

impl FromStr for Backend {
    type Err = ChoiceError;

    fn from_str(word: &str) -> Result<Self, ChoiceError> {
        match word {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "wgpu" => Ok(Self::Wgpu),
            "onnx" => Ok(Self::Onnx),
            _ => Err(ChoiceError { what: "backend", expected: "auto, cpu, wgpu or onnx", got: word.into() }),
        }
    }
}

impl FromStr for Precision {
    type Err = ChoiceError;

    fn from_str(word: &str) -> Result<Self, ChoiceError> {
        match word {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::Int8),
            _ => Err(ChoiceError {
                what: "precision",
                expected: "auto, f32, bf16, f16 or int8 (what int4 files run in)",
                got: word.into(),
            }),
        }
    }
}

fn weights_of(quantization: &Quantization) -> &'static str {
    if quantization.int4_group.is_some() { " with int4 weights" } else { "" }
}

impl Precision {
    /// What `Auto` becomes on the CPU engine, and why: int8 if `dinov2-edge quantize` measured for this very file that it
    /// meets the gate ([`dinov2_weights::Quantization::meets_gate`]), else f32.
    pub fn choose(model: &Model) -> (CpuPrecision, String) {
        match &model.metadata().quantization {
            Some(quantization) if quantization.meets_gate() => {
                let least = quantization.fidelity.iter().map(|fidelity| fidelity.median).fold(1.0, f64::min);
                let of = weights_of(quantization);
                (
                    CpuPrecision::Int8,
                    format!("int8{of} meets its gate for this file (patch cosine median {least:.5})"),
                )
            }
            Some(quantization) => {
                (CpuPrecision::F32, format!("int8{} misses its gate for this file", weights_of(quantization)))
            }
            None => {
                let reason = "int8 was not measured for this file (dinov2-edge quantize does)";
                (CpuPrecision::F32, reason.into())
            }
        }
    }

    pub(crate) fn on_cpu(self, model: &Model, isa: Isa) -> Result<CpuPrecision, EngineError> {
        Ok(match self {
            Self::Auto => Self::choose(model).0,
            Self::F32 => CpuPrecision::F32,
            Self::Bf16 if isa.half_format() == HalfFormat::Bf16 => CpuPrecision::Half,
            Self::F16 if isa.half_format() == HalfFormat::F16 => CpuPrecision::Half,
            Self::Bf16 | Self::F16 => {
                return Err(EngineError::HalfFormat { isa: isa.name(), format: isa.half_format().name() });
            }
            Self::Int8 => CpuPrecision::Int8,
        })
    }
    /// On a GPU, `f16` if it has 16-bit floats. There `Auto` is f16, which loses nothing that a gate could see, or else what
    /// [`Self::choose`] says.
    #[cfg(feature = "wgpu")]
    pub(crate) fn on_gpu(self, model: &Model, f16: bool) -> Result<GpuPrecision, EngineError> {
        Ok(match self {
            Self::Auto if f16 => GpuPrecision::F16,
            Self::Auto => match Self::choose(model).0 {
                CpuPrecision::Int8 => GpuPrecision::Int8,
                CpuPrecision::F32 | CpuPrecision::Half => GpuPrecision::F32,
            },
            Self::F32 => GpuPrecision::F32,
            Self::F16 => GpuPrecision::F16,
            Self::Bf16 => return Err(EngineError::GpuPrecision),
            Self::Int8 => GpuPrecision::Int8,
        })
    }
}
