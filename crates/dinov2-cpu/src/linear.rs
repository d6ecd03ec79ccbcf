//! A linear layer in the precision of the engine, from a model file to its application.

use dinov2_kernels::gemm_f32::PackedLinear;
use dinov2_kernels::gemm_i8::{Int8Weight, PackedLinearI8};
use dinov2_kernels::layer_norm::{LayerNorm, layer_norm};
use dinov2_kernels::quantise::{QuantisedRows, layer_norm_quantised, quantise_rows};
use dinov2_kernels::{AlignedBuffer, Epilogue, Isa, Pool};
use dinov2_weights::{Int8Rows, Model};

use crate::{CpuPrecision, LoadError};

/// Weight and bias, unpacked.
pub(crate) struct Unpacked {
    values: Values,
    /// `[n]`.
    bias: Vec<f32>,
}

enum Values {
    /// `[n, k]`.
    F32(Vec<f32>),
    Int8(Int8Rows),
}

impl Unpacked {
    /// Reads `NAME.weight` and `NAME.bias`. For int8 the file's own integers are taken where it has them.
    pub(crate) fn read(model: &Model, name: &str, precision: CpuPrecision) -> Result<Self, LoadError> {
        let weight = format!("{name}.weight");
        let values = match precision {
            CpuPrecision::F32 => Values::F32(model.f32(&weight)?),
            CpuPrecision::Int8 => Values::Int8(model.int8(&weight)?),
        };
        Ok(Self { values, bias: model.f32(&format!("{name}.bias"))? })
    }

    /// Multiplies output channel `i` by `factors[i]`; exact for int8, whose channels have a scale of their own.
    pub(crate) fn scale_outputs(&mut self, factors: &[f32]) {
        match &mut self.values {
            Values::F32(values) => {
                let k = values.len() / factors.len();
                for (row, factor) in values.chunks_exact_mut(k).zip(factors) {
                    row.iter_mut().for_each(|value| *value *= factor);
                }
            }
            Values::Int8(rows) => {
                rows.scale.iter_mut().zip(factors).for_each(|(scale, factor)| *scale *= factor);
            }
        }
        self.bias.iter_mut().zip(factors).for_each(|(bias, factor)| *bias *= factor);
    }

    /// For one instruction set.
    pub(crate) fn pack(&self, isa: Isa) -> Linear {
        match &self.values {
            Values::F32(values) => {
                Linear::F32(PackedLinear::pack(isa, values, &self.bias, values.len() / self.bias.len()))
            }
            Values::Int8(rows) => Linear::Int8(PackedLinearI8::pack(isa, self.int8(rows))),
        }
    }

    /// The fused gate and value of a SwiGLU layer.
    pub(crate) fn pack_gated(&self, isa: Isa) -> Linear {
        match &self.values {
            Values::F32(values) => {
                Linear::F32(PackedLinear::pack_gated(isa, values, &self.bias, values.len() / self.bias.len()))
            }
            Values::Int8(rows) => Linear::Int8(PackedLinearI8::pack_gated(isa, self.int8(rows))),
        }
    }

    fn int8<'a>(&'a self, rows: &'a Int8Rows) -> Int8Weight<'a> {
        let k = rows.values.len() / self.bias.len();
        Int8Weight { values: &rows.values, scale: &rows.scale, bias: &self.bias, k }
    }
}

/// A linear layer, packed for one instruction set.
pub(crate) enum Linear {
    F32(PackedLinear),
    Int8(PackedLinearI8),
}

/// Where a layer's input is prepared: normalised, quantised or both.
#[derive(Default)]
pub(crate) struct InputScratch {
    /// `[n, dim]`.
    pub(crate) normed: AlignedBuffer,
    pub(crate) quantised: QuantisedRows,
}

impl Linear {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(layer) => layer.bytes(),
            Self::Int8(layer) => layer.bytes(),
        }
    }

    /// `out = epilogue(layer(input))`, `input: [n, k]`.
    pub(crate) fn apply(
        &self,
        (isa, pool): (Isa, &Pool),
        epilogue: Epilogue,
        input: &[f32],
        quantised: &mut QuantisedRows,
        out: &mut [f32],
    ) {
        match self {
            Self::F32(layer) => layer.apply(isa, pool, epilogue, input, out),
            Self::Int8(layer) => {
                quantise_rows(isa, pool, input, layer.in_cols(), quantised);
                layer.apply(isa, pool, epilogue, quantised, out);
            }
        }
    }

    /// `layer_norm(tokens)` in the form that [`Self::apply_prepared`] takes.
    pub(crate) fn prepare_normed(
        &self,
        (isa, pool): (Isa, &Pool),
        norm: &LayerNorm<'_>,
        tokens: &[f32],
        scratch: &mut InputScratch,
    ) {
        match self {
            Self::F32(_) => layer_norm(isa, pool, norm, tokens, &mut scratch.normed),
            Self::Int8(_) => layer_norm_quantised(isa, pool, norm, tokens, &mut scratch.quantised),
        }
    }

    /// `out = epilogue(layer(prepared input))`.
    pub(crate) fn apply_prepared(
        &self,
        (isa, pool): (Isa, &Pool),
        epilogue: Epilogue,
        scratch: &InputScratch,
        out: &mut [f32],
    ) {
        match self {
            Self::F32(layer) => layer.apply(isa, pool, epilogue, &scratch.normed, out),
            Self::Int8(layer) => layer.apply(isa, pool, epilogue, &scratch.quantised, out),
        }
    }
}
