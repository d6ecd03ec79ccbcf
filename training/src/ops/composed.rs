//! The operations composed of candle's primitives: for GPUs and 16-bit floats, and as the reference of the fused forms.

use candle_core::{D, DType, Result, Tensor, bail};
use dinov2_kernels::attention_i16;

use super::AttentionShape;

/// Most elements of candle's CUDA kernels, which count them in 32 bits.
const MAX_CUDA_ELEMENTS: usize = u32::MAX as usize;

/// As [`super::linear`].
///
/// # Errors
/// Shapes that do not fit.
pub fn linear(input: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    // candle's CUDA products require contiguous rows.
    input.contiguous()?.matmul(&weight.t()?)?.broadcast_add(bias)
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

/// As [`super::gelu`]. In 16 bits by candle's own operation, which rounds only its result: `1 + erf(x)` has no digits there where
/// `x` is well below 0.
///
/// # Errors
/// Those of candle.
pub fn gelu(input: &Tensor) -> Result<Tensor> {
    if matches!(input.dtype(), DType::BF16 | DType::F16) {
        return input.gelu_erf();
    }
    let cumulative = (((input / std::f64::consts::SQRT_2)?.erf()? + 1.0)? * 0.5)?;
    input * cumulative
}

/// As [`super::attention`]; the softmax in f32 whatever the type.
///
/// # Errors
/// A shape that does not fit, more scores than candle's CUDA kernels can count.
pub fn attention(qkv: &Tensor, shape: AttentionShape) -> Result<Tensor> {
    let AttentionShape { batch, tokens, heads, head_dim } = shape;
    let scores = shape.scores();
    if qkv.device().is_cuda() && scores > MAX_CUDA_ELEMENTS {
        bail!(
            "attention: expected at most {MAX_CUDA_ELEMENTS} scores at once, got {scores}: accumulate more, smaller parts"
        );
    }
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
    // The softmax does not depend on the subtracted maximum, so no gradient flows through it.
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

/// As [`super::fake_quantize_rows`], but ties away from zero, and not for rows of zeros in numbers below f32's.
///
/// # Errors
/// Those of candle.
pub fn fake_quantize_rows(input: &Tensor) -> Result<Tensor> {
    let x = input.detach();
    let low = x.min_keepdim(D::Minus1)?.minimum(0.0)?;
    let high = x.max_keepdim(D::Minus1)?.maximum(0.0)?;
    let scale = ((high - &low)? / 255.0)?.maximum(f64::from(f32::MIN_POSITIVE))?;
    let zero = (low.neg()? / &scale)?.round()?;
    let whole = x.broadcast_div(&scale)?.round()?.broadcast_add(&zero)?.clamp(0.0, 255.0)?;
    let rounded = whole.broadcast_sub(&zero)?.broadcast_mul(&scale)?;
    input + (rounded - x)?
}

/// As [`super::fake_quantize_attention`]; the engine's rounding of softmax weights to 14 bits is left out.
///
/// # Errors
/// A shape that does not fit.
pub fn fake_quantize_attention(qkv: &Tensor, shape: AttentionShape) -> Result<Tensor> {
    let AttentionShape { batch, tokens, heads, head_dim } = shape;
    let all = qkv.detach().reshape((batch, tokens, 3, heads, head_dim))?;
    let fine = f64::from(attention_i16::query_key_limit(head_dim));
    let part = |index: usize, shared: &[usize], limit: f64| {
        let part = all.narrow(2, index, 1)?.contiguous()?;
        let mut largest = part.abs()?;
        for dim in shared {
            largest = largest.max_keepdim(*dim)?;
        }
        let scale = (largest / limit)?.maximum(f64::from(f32::MIN_POSITIVE))?;
        part.broadcast_div(&scale)?.round()?.broadcast_mul(&scale)
    };
    let values = attention_i16::VALUE_LIMIT as f64;
    let rounded = Tensor::cat(&[part(0, &[4], fine)?, part(1, &[1, 4], fine)?, part(2, &[1], values)?], 2)?;
    qkv + (rounded.reshape(qkv.shape())? - qkv.detach())?
}

/// As [`super::fake_quantize_weight`].
///
/// # Errors
/// Shapes that do not fit.
pub fn fake_quantize_weight(weight: &Tensor, log_scale: &Tensor, limit: u8) -> Result<Tensor> {
    let scale = log_scale.exp()?.unsqueeze(1)?;
    let inside = weight.broadcast_div(&scale)?.clamp(-f64::from(limit), f64::from(limit))?;
    let residue = (inside.round()? - &inside)?.detach();
    (inside + residue)?.broadcast_mul(&scale)
}
