//! The definition: factors rounded to the format (by the crate `half`), exact sums in double precision, rounded once.

use alloc::vec::Vec;

use super::HalfFormat;
use crate::epilogue::Epilogue;

/// A value rounded to a format and back.
pub(super) fn rounded(format: HalfFormat, x: f32) -> f32 {
    match format {
        HalfFormat::Bf16 => half::bf16::from_f32(x).to_f32(),
        HalfFormat::F16 => half::f16::from_f32(x.clamp(-65504.0, 65504.0)).to_f32(),
    }
}

/// `before`: what `out` held, read by [`Epilogue::Add`].
pub(super) fn linear(
    format: HalfFormat,
    epilogue: Epilogue,
    (input, weight, bias): (&[f32], &[f32], &[f32]),
    k: usize,
    before: &[f32],
) -> Vec<f32> {
    let round = |values: &[f32]| values.iter().map(|&x| rounded(format, x)).collect::<Vec<_>>();
    crate::gemm_f32::scalar::linear(epilogue, &round(input), &round(weight), bias, k, before)
}
