//! Attention in one kernel that keeps no scores (Dao 2023, arXiv 2307.08691), forward only. Type-checked, but not run: its kernels
//! take hours to build.

use candle_core::{DType, Result, Tensor};

use super::AttentionShape;

/// The widest head that the kernels support.
const MAX_HEAD_DIM: usize = 256;

/// Whether the kernels support the input: 16 bits, on a GPU, and no gradient flows through it.
pub(super) fn takes(qkv: &Tensor, shape: AttentionShape) -> bool {
    let is_half = matches!(qkv.dtype(), DType::BF16 | DType::F16);
    let is_width = shape.head_dim <= MAX_HEAD_DIM && shape.head_dim.is_multiple_of(8);
    qkv.device().is_cuda() && is_half && is_width && !qkv.track_op()
}

/// As [`super::attention`].
pub(super) fn attention(qkv: &Tensor, shape: AttentionShape) -> Result<Tensor> {
    let AttentionShape { batch, tokens, heads, head_dim } = shape;
    let qkv = qkv.reshape((batch, tokens, 3, heads, head_dim))?;
    // [batch, tokens, heads, head_dim]; the kernels follow the strides.
    let part = |index: usize| qkv.narrow(2, index, 1)?.squeeze(2);
    let mixed = candle_flash_attn::flash_attn(&part(0)?, &part(1)?, &part(2)?, shape.scale(), false)?;
    mixed.reshape((batch * tokens, shape.dim()))
}
