//! How a CPU engine is set up: threads, instruction set, arithmetic, reuse between frames.

use std::num::NonZeroUsize;

use dinov2_kernels::Isa;

use crate::Incremental;

/// How a [`crate::CpuEngine`] is set up.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CpuConfig {
    /// Threads, the caller's included.
    pub threads: NonZeroUsize,
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Arithmetic of the blocks.
    pub precision: CpuPrecision,
    /// For a video of a camera that stands still: reuse of what earlier frames had in common with this one. Such an
    /// engine is for one video; frames of a batch count as consecutive.
    pub incremental: Option<Incremental>,
}

/// Arithmetic of the transformer blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuPrecision {
    /// 32-bit floats throughout.
    F32,
    /// Matrices in the instruction set's 16-bit floats ([`Isa::half_format`]), summed in f32. Attention as in
    /// [`Self::Int8`]; the rest stays f32. Faster than f32 where [`Isa::has_fast_half`]; half the weights' memory
    /// everywhere.
    Half,
    /// Matrices in 8 bits: weights per output channel, activations per token, quantized as they come. Attention in
    /// 16-bit integers where the CPU gains by it. Residual stream, LayerNorm, GELU and softmax stay f32.
    Int8,
}

/// A matrix of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Matrix {
    /// Queries, keys and values.
    Qkv,
    /// After attention.
    Projection,
    /// `fc1`, or the gated `w12`.
    MlpIn,
    /// `fc2` or `w3`.
    MlpOut,
}

/// Sees the input of a block's matrix: `(block, matrix, input: [n, k])`.
pub type Observer<'a> = dyn FnMut(usize, Matrix, &[f32]) + 'a;

impl Default for CpuConfig {
    /// f32, the threads of [`crate::CpuGrant::threads`], and the widest instruction set of the CPU.
    fn default() -> Self {
        Self {
            threads: crate::default_threads(),
            isa: Isa::detect(),
            precision: CpuPrecision::F32,
            incremental: None,
        }
    }
}

impl CpuConfig {
    /// The default with this number of threads.
    pub fn with_threads(threads: NonZeroUsize) -> Self {
        Self { threads, ..Self::default() }
    }
}
