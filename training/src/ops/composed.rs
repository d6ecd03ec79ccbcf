//! The operations out of candle's primitives: for GPUs and 16-bit floats, and as the oracle of the fused forms.

use candle_core::{D, DType, Result, Tensor};

use super::AttentionShape;

/// As [`super::linear`].
///
/// # Errors
/// Shapes that do not fit.
pub fn linear(input: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    input.matmul(&weight.t()?)?.broadcast_add(bias)
}

/// As [`super::layer_norm`]; statistics in f32 whatever the type.
///
/// # Errors
/// Shapes that do not fit.
pub fn layer_norm(input: &Tensor, scale: &Tensor, shift: &Tensor, eps: f32) -> Result<Tensor> {
    let dtype = input.dtype();
    let wide = input.to_dtype(if dtype == DType::F64 { DType::F64 } else { DType::F32 })?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + f64::from(eps))?.sqrt()?)?;
    normal.to_dtype(dtype)?.broadcast_mul(scale)?.broadcast_add(shift)
}

/// As [`super::gelu`].
///
/// # Errors
/// Those of candle.
pub fn gelu(input: &Tensor) -> Result<Tensor> {
    let cumulative = (((input / std::f64::consts::SQRT_2)?.erf()? + 1.0)? * 0.5)?;
    input * cumulative
}

/// As [`super::attention`]; the softmax in f32 whatever the type.
///
/// # Errors
/// A shape that does not fit.
pub fn attention(qkv: &Tensor, shape: AttentionShape) -> Result<Tensor> {
    let AttentionShape { batch, tokens, heads, head_dim } = shape;
    // [3, batch, heads, tokens, head_dim]
    let qkv = qkv.reshape((batch, tokens, 3, heads, head_dim))?.permute((2, 0, 3, 1, 4))?;
    let part = |index: usize| qkv.get(index)?.contiguous();
    let query = (part(0)? * f64::from(shape.scale()))?;
    let scores = query.matmul(&part(1)?.transpose(2, 3)?)?;
    let weights = softmax(&scores)?.to_dtype(qkv.dtype())?;
    let mixed = weights.matmul(&part(2)?)?;
    mixed.transpose(1, 2)?.reshape((batch * tokens, shape.dim()))
}

/// Softmax over the last dimension, in f32 or f64.
///
/// # Errors
/// Those of candle.
pub fn softmax(scores: &Tensor) -> Result<Tensor> {
    let wide = scores.to_dtype(if scores.dtype() == DType::F64 { DType::F64 } else { DType::F32 })?;
    // The softmax does not change with what is taken off, so nothing flows back through the maximum.
    let powers = wide.broadcast_sub(&wide.max_keepdim(D::Minus1)?.detach())?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
}

/// As [`super::add_scaled`].
///
/// # Errors
/// Shapes that do not fit.
pub fn add_scaled(input: &Tensor, branch: &Tensor, factor: &Tensor) -> Result<Tensor> {
    input + branch.broadcast_mul(factor)?
}
