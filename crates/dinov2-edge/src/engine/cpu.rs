//! Opens the CPU engine; chooses arithmetic and threads by model, CPU and configuration.

use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision, Isa, default_threads};
use dinov2_kernels::gemm_half::HalfFormat;
use dinov2_weights::{Model, Quantization};

use super::{EngineConfig, EngineError, Precision, SelectedEngine};

pub(super) fn open(model: &Model, config: &EngineConfig) -> Result<SelectedEngine, EngineError> {
    let (cpu, reason) = cpu_config(model, config)?;
    Ok(SelectedEngine::new_with(load(model, cpu)?, reason))
}

pub(super) fn load(model: &Model, config: CpuConfig) -> Result<CpuEngine, EngineError> {
    CpuEngine::new(model, config).map_err(EngineError::load)
}

/// Arithmetic and threads of the CPU engine, and the reason for the arithmetic.
pub(super) fn cpu_config(model: &Model, config: &EngineConfig) -> Result<(CpuConfig, String), EngineError> {
    let mut cpu = CpuConfig::with_threads(config.threads.unwrap_or_else(default_threads));
    cpu.isa = config.isa.unwrap_or(cpu.isa);
    cpu.precision = config.precision.on_cpu(model, cpu.isa)?;
    cpu.incremental = config.incremental;
    let reason = match config.precision {
        Precision::Auto => Precision::choose(model).1,
        asked => format!("{asked:?} was requested").to_lowercase(),
    };
    Ok((cpu, reason))
}

fn weights_of(quantization: &Quantization) -> &'static str {
    if quantization.int4_group.is_some() { " with int4 weights" } else { "" }
}

impl Precision {
    /// The precision of `Auto` on the CPU engine, and the reason: int8 if the fidelity that `dinov2-edge quantize` measured for this
    /// file meets the gate ([`dinov2_weights::Quantization::meets_gate`]), otherwise f32.
    pub fn choose(model: &Model) -> (CpuPrecision, String) {
        match &model.metadata().quantization {
            Some(quantization) if quantization.meets_gate() => {
                let least = quantization.fidelity.iter().map(|fidelity| fidelity.median).fold(1.0, f64::min);
                let of = weights_of(quantization);
                (
                    CpuPrecision::Int8,
                    format!("int8{of} meets its gate for this file (median patch cosine {least:.5})"),
                )
            }
            Some(quantization) => {
                (CpuPrecision::F32, format!("int8{} misses its gate for this file", weights_of(quantization)))
            }
            None => {
                let reason = "int8 was not measured for this file (dinov2-edge quantize measures it)";
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
}
