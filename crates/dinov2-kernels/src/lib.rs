//! Compute kernels of the CPU engine: one folder per operation, each with its definition in plain scalar code
//! (`scalar.rs`). Floats have one vector form, written against [`simd::Simd`] and instantiated per instruction set;
//! integer products and 16-bit floats have a micro-kernel per set ([`simd::dot::Dot`], [`simd::half::Half`]).
//!
//! Tensors between kernels are row-major f32, outermost dimension first. Nothing here allocates per call: weights are
//! packed once ([`gemm_f32::PackedLinear`], [`gemm_half::PackedLinearHalf`], [`gemm_i8::PackedLinearI8`]), scratch is
//! sized by the caller. Work is split over a [`Pool`].
//!
//! What this crate does not do: it knows no model, no file and no token order; the engine does.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod activation;
mod aligned;
mod blocking;
mod disjoint;
mod epilogue;
mod layer_shape;
#[cfg(test)]
mod test_util;

pub mod attention;
pub mod attention_i16;
pub mod gemm_f32;
pub mod gemm_half;
pub mod gemm_i8;
pub mod layer_norm;
pub mod patch_embed;
#[cfg(feature = "std")]
pub mod peak;
pub mod pool;
pub mod quantize;
pub mod simd;

pub use aligned::{AlignedBuffer, Number};
pub use epilogue::Epilogue;
pub use pool::Pool;
pub use simd::Isa;
