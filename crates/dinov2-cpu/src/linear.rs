//! A linear layer in the precision of the engine, from a model file to its application.

use dinov2_kernels::gemm_f32::PackedLinear;
use dinov2_kernels::gemm_half::{HalfRows, PackedLinearHalf, layer_norm_rounded, round_rows};
use dinov2_kernels::gemm_i8::{Int8Weight, PackedLinearI8};
use dinov2_kernels::layer_norm::{LayerNorm, layer_norm};
use dinov2_kernels::quantize::{QuantizedRows, layer_norm_quantized, quantize_rows};
use dinov2_kernels::{AlignedBuffer, Epilogue, Isa, Pool};
use dinov2_weights::{Int8Rows, Model};

use crate::{CpuPrecision, LoadError};

/// Weight and bias, unpacked.
pub(crate) struct Unpacked {
    values: Values,
    /// `[n]`.
    bias: Vec<f32>,
    precision: CpuPrecision,
}

enum Values {
    /// `[n, k]`.
    Floats(Vec<f32>),
    Int8(Int8Rows),
}

impl Unpacked {
    /// Reads `NAME.weight` and `NAME.bias`. For int8, weights that the file stores as int8 are used without requantization.
    pub(crate) fn read(model: &Model, name: &str, precision: CpuPrecision) -> Result<Self, LoadError> {
        let weight = format!("{name}.weight");
        let values = match precision {
            CpuPrecision::F32 | CpuPrecision::Half => Values::Floats(model.f32(&weight)?),
            CpuPrecision::Int8 => Values::Int8(model.int8(&weight)?),
        };
        Ok(Self { values, bias: model.f32(&format!("{name}.bias"))?, precision })
    }

    /// Multiplies output channel `i` by `factors[i]`; exact for int8, whose channels have a scale of their own.
    pub(crate) fn scale_outputs(&mut self, factors: &[f32]) {
        match &mut self.values {
            Values::Floats(values) => {
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
        self.pack_rows(isa, false)
    }

    /// The fused gate and value of a SwiGLU layer.
    pub(crate) fn pack_gated(&self, isa: Isa) -> Linear {
        self.pack_rows(isa, true)
    }

    fn pack_rows(&self, isa: Isa, gated: bool) -> Linear {
        let bias = &self.bias;
        match (&self.values, self.precision) {
            (Values::Int8(Int8Rows { values, scale }), _) => {
                let pack = if gated { PackedLinearI8::pack_gated } else { PackedLinearI8::pack };
                Linear::Int8(pack(isa, Int8Weight { values, scale, bias, k: values.len() / bias.len() }))
            }
            (Values::Floats(values), CpuPrecision::Half) => {
                let pack = if gated { PackedLinearHalf::pack_gated } else { PackedLinearHalf::pack };
                Linear::Half(pack(isa, values, bias, values.len() / bias.len()))
            }
            (Values::Floats(values), _) => {
                let pack = if gated { PackedLinear::pack_gated } else { PackedLinear::pack };
                Linear::F32(pack(isa, values, bias, values.len() / bias.len()))
            }
        }
    }
}

/// A linear layer, packed for one instruction set.
pub(crate) enum Linear {
    F32(PackedLinear),
    Half(PackedLinearHalf),
    Int8(PackedLinearI8),
}

/// A layer's input in the form that its precision multiplies.
#[derive(Default)]
pub(crate) struct Rounded {
    half: HalfRows,
    quantized: QuantizedRows,
}

/// A layer's input after LayerNorm, rounding or both.
#[derive(Default)]
pub(crate) struct InputScratch {
    /// `[n, dim]`.
    pub(crate) normed: AlignedBuffer,
    pub(crate) rounded: Rounded,
}

impl Linear {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(layer) => layer.bytes(),
            Self::Half(layer) => layer.bytes(),
            Self::Int8(layer) => layer.bytes(),
        }
    }

    /// `out = epilogue(layer(input))`, `input: [n, k]`.
    pub(crate) fn apply(
        &self,
        (isa, pool): (Isa, &Pool),
        epilogue: Epilogue,
        input: &[f32],
        rounded: &mut Rounded,
        out: &mut [f32],
    ) {
        match self {
            Self::F32(layer) => layer.apply(isa, pool, epilogue, input, out),
            Self::Half(layer) => {
                round_rows(isa, pool, input, layer.in_cols(), &mut rounded.half);
                layer.apply(isa, pool, epilogue, &rounded.half, out);
            }
            Self::Int8(layer) => {
                quantize_rows(isa, pool, input, layer.in_cols(), &mut rounded.quantized);
                layer.apply(isa, pool, epilogue, &rounded.quantized, out);
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
        let InputScratch { normed, rounded } = scratch;
        match self {
            Self::F32(_) => layer_norm(isa, pool, norm, tokens, normed),
            Self::Half(_) => layer_norm_rounded(isa, pool, norm, tokens, &mut rounded.half),
            Self::Int8(_) => layer_norm_quantized(isa, pool, norm, tokens, &mut rounded.quantized),
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
            Self::Half(layer) => layer.apply(isa, pool, epilogue, &scratch.rounded.half, out),
            Self::Int8(layer) => layer.apply(isa, pool, epilogue, &scratch.rounded.quantized, out),
        }
    }
}
