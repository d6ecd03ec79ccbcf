//! The operations that a vision transformer is made of, differentiable.
//!
//! candle's own LayerNorm, softmax and fused attention have no backward pass: gradients end there without an error. Each
//! operation here has two forms. On CPUs in f32 it is fused: one pass forward and one backward, spread over rayon's threads,
//! with the same bits for any number of them. Everywhere else it is composed of candle's differentiable primitives
//! (`composed.rs`), which is also what the tests compare the fused form with. With the feature `flash-attn`, attention through
//! which no gradient flows back is one kernel on a GPU (`flash.rs`).
//!
//! Tokens of a batch are rows: `[batch * n, dim]`.

mod add_scaled;
mod attention;
pub mod composed;
mod fake_quantize;
#[cfg(feature = "flash-attn")]
mod flash;
mod gelu;
mod layer_norm;
mod linear;
mod math;
mod rows;
mod update;

use candle_core::{DType, Device, Result, Tensor};

pub use attention::AttentionShape;
pub use update::{AdamStep, adam_step, average_step, sum_of_squares};

/// Whether the fused form exists.
fn is_fused(tensor: &Tensor) -> bool {
    matches!(tensor.device(), Device::Cpu) && tensor.dtype() == DType::F32
}

/// `input · weightᵀ + bias`. `input: [rows, k]`, `weight: [n, k]`, `bias: [n]`; returns `[rows, n]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn linear(input: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if is_fused(input) {
        input.contiguous()?.apply_op3(weight, bias, linear::Linear)
    } else {
        composed::linear(input, weight, bias)
    }
}

/// LayerNorm over the last dimension: `(x - mean) / √(variance + eps) · scale + shift`, the variance without Bessel's correction.
/// `input: [rows, dim]`, `scale` and `shift`: `[dim]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn layer_norm(input: &Tensor, scale: &Tensor, shift: &Tensor, eps: f32) -> Result<Tensor> {
    if is_fused(input) {
        input.contiguous()?.apply_op3(scale, shift, layer_norm::LayerNorm { eps })
    } else {
        composed::layer_norm(input, scale, shift, eps)
    }
}

/// `x · Φ(x)`, the exact (erf) form.
///
/// # Errors
/// Those of candle.
pub fn gelu(input: &Tensor) -> Result<Tensor> {
    if is_fused(input) { input.contiguous()?.apply_op1(gelu::Gelu) } else { composed::gelu(input) }
}

/// Self-attention of every image with itself. `qkv: [batch * n, 3 * dim]`, queries, keys, values, each with its heads one after
/// the other; returns `[batch * n, dim]`.
///
/// # Errors
/// A shape that does not fit.
pub fn attention(qkv: &Tensor, shape: AttentionShape) -> Result<Tensor> {
    if is_fused(qkv) {
        return qkv.contiguous()?.apply_op1(attention::Attention { shape });
    }
    #[cfg(feature = "flash-attn")]
    if flash::takes(qkv, shape) {
        return flash::attention(qkv, shape);
    }
    composed::attention(qkv, shape)
}

/// `input + branch · factor`: a residual connection with LayerScale. `input`, `branch`: `[rows, dim]`, `factor: [dim]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn add_scaled(input: &Tensor, branch: &Tensor, factor: &Tensor) -> Result<Tensor> {
    if is_fused(input) {
        input.contiguous()?.apply_op3(&branch.contiguous()?, factor, add_scaled::AddScaled)
    } else {
        composed::add_scaled(input, branch, factor)
    }
}

/// Rows (tokens) with the rounding of the runtime's int8 engine: 256 steps between a row's extremes and 0, ties to even
/// (`dinov2_kernels::quantize`). The gradient passes straight through (Bengio et al. 2013, arXiv 1308.3432). `input: [rows, k]`.
///
/// # Errors
/// A shape that does not fit.
pub fn fake_quantize_rows(input: &Tensor) -> Result<Tensor> {
    if is_fused(input) {
        input.contiguous()?.apply_op1(fake_quantize::FakeQuantizeRows)
    } else {
        composed::fake_quantize_rows(input)
    }
}

/// A matrix with the values of an int8 model file: `s · clamp(round(w / s), -limit, limit)`, `s = e^log_scale` per row (output
/// channel). Gradients: straight through to weights within the range, LSQ's to the scales (Esser et al. 2020, arXiv 1902.08153).
/// `weight: [n, k]`, `log_scale: [n]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn fake_quantize_weight(weight: &Tensor, log_scale: &Tensor, limit: u8) -> Result<Tensor> {
    if is_fused(weight) {
        let op = fake_quantize::FakeQuantizeWeight { limit: limit.into() };
        weight.contiguous()?.apply_op2(log_scale, op)
    } else {
        composed::fake_quantize_weight(weight, log_scale, limit)
    }
}

/// Queries, keys and values with the rounding of the runtime's int8 engine: in 16 bits, queries with a scale per token and head, keys per
/// image and head, values per image and channel (`dinov2_kernels::attention_i16`). The gradient passes straight through.
/// `qkv: [batch * n, 3 * dim]`.
///
/// # Errors
/// A shape that does not fit.
pub fn fake_quantize_attention(qkv: &Tensor, shape: AttentionShape) -> Result<Tensor> {
    composed::fake_quantize_attention(qkv, shape)
}

#[cfg(test)]
mod tests;
