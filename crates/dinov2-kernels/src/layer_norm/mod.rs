//! LayerNorm over the last dimension: `(x - mean) / sqrt(variance + eps) * gamma + beta` per row (Ba et al. 2016),
//! variance biased as in PyTorch.
//!
//! ```
//! use dinov2_kernels::layer_norm::{LayerNorm, layer_norm};
//! use dinov2_kernels::{Isa, Pool};
//!
//! let params = LayerNorm { gamma: &[1.0, 1.0], beta: &[0.0, 1.0], eps: 1e-6 };
//! let mut out = [0.0; 2];
//! layer_norm(Isa::detect(), &Pool::single(), &params, &[3.0, 5.0], &mut out);
//! assert!((out[0] + 1.0).abs() < 1e-5 && (out[1] - 2.0).abs() < 1e-5);
//! ```

#[cfg(test)]
pub(crate) mod scalar;

use crate::disjoint::Disjoint;
use crate::simd::{Kernel, Simd, load_padded};
use crate::{Isa, Pool};

/// Rows per parallel task.
const TASK_ROWS: usize = 16;

/// Normalises every row of `input: [rows, dim]` into `output: [rows, dim]`. `gamma`, `beta`: `[dim]`.
///
/// # Panics
/// When lengths disagree.
pub fn layer_norm(isa: Isa, pool: &Pool, params: &LayerNorm<'_>, input: &[f32], output: &mut [f32]) {
    let dim = params.gamma.len();
    assert_eq!(params.beta.len(), dim, "layer_norm: beta [dim]");
    assert!(dim > 0 && input.len().is_multiple_of(dim), "layer_norm: input [rows, {dim}]");
    assert_eq!(output.len(), input.len(), "layer_norm: output [rows, dim]");
    let rows = input.len() / dim;
    let output = Disjoint::new(output);
    pool.run(rows.div_ceil(TASK_ROWS), &|task| {
        let first = task * TASK_ROWS;
        let range = first * dim..(first + TASK_ROWS).min(rows) * dim;
        #[expect(unsafe_code, reason = "rows are shared out among tasks")]
        // SAFETY: tasks have disjoint row ranges.
        let output = unsafe { output.slice(range.start, range.len()) };
        isa.run(Rows { params, input: &input[range], output });
    });
}

/// Parameters of one LayerNorm.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// `[dim]`.
    pub gamma: &'a [f32],
    /// `[dim]`.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

struct Rows<'a> {
    params: &'a LayerNorm<'a>,
    input: &'a [f32],
    output: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let dim = self.params.gamma.len();
        for (input, output) in self.input.chunks_exact(dim).zip(self.output.chunks_exact_mut(dim)) {
            normalise_row(simd, self.params, input, output);
        }
    }
}

/// Mean of a row and the inverse of its standard deviation: two passes over a row that stays in the first-level cache,
/// so that a large mean costs no precision.
#[inline(always)]
fn statistics<S: Simd>(simd: S, row: &[f32], eps: f32) -> (f32, f32) {
    let dim = row.len() as f32;
    let mean = sum(simd, row, |x| x, |x| x) / dim;
    let centre = simd.splat(mean);
    let square = |x| {
        let deviation = simd.sub(x, centre);
        simd.mul(deviation, deviation)
    };
    let variance = sum(simd, row, square, |x| (x - mean) * (x - mean)) / dim;
    (mean, 1.0 / sqrt(variance + eps))
}

/// A row, normalised as it is read.
pub(crate) struct Normed<'a> {
    row: &'a [f32],
    params: &'a LayerNorm<'a>,
    mean: f32,
    inverse: f32,
}

impl<'a> Normed<'a> {
    #[inline(always)]
    pub(crate) fn new<S: Simd>(simd: S, params: &'a LayerNorm<'a>, row: &'a [f32]) -> Self {
        let (mean, inverse) = statistics(simd, row, params.eps);
        Self { row, params, mean, inverse }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.row.len()
    }

    /// The vector that starts at `at`; arbitrary beyond the row.
    #[inline(always)]
    pub(crate) fn at<S: Simd>(&self, simd: S, at: usize) -> S::V {
        let deviation = simd.sub(load_padded(simd, self.row, at), simd.splat(self.mean));
        let gamma = load_padded(simd, self.params.gamma, at);
        let beta = load_padded(simd, self.params.beta, at);
        simd.mul_add(simd.mul(deviation, simd.splat(self.inverse)), gamma, beta)
    }
}

#[inline(always)]
fn normalise_row<S: Simd>(simd: S, params: &LayerNorm<'_>, input: &[f32], output: &mut [f32]) {
    let dim = input.len();
    let (mean, inverse) = statistics(simd, input, params.eps);
    let centre = simd.splat(mean);
    let whole = dim - dim % S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        #[expect(unsafe_code, reason = "vector loads and stores")]
        // SAFETY: `at + LANES <= dim`, and input, output, gamma and beta are `dim` long.
        unsafe {
            let x = simd.mul(simd.sub(simd.load(input.as_ptr().add(at)), centre), simd.splat(inverse));
            let gamma = simd.load(params.gamma.as_ptr().add(at));
            let beta = simd.load(params.beta.as_ptr().add(at));
            simd.store(output.as_mut_ptr().add(at), simd.mul_add(x, gamma, beta));
        }
    }
    for at in whole..dim {
        output[at] = (input[at] - mean) * inverse * params.gamma[at] + params.beta[at];
    }
}

/// Sum of `lanes(x)` over the row; `one` is the same function for the elements beyond the last whole vector.
#[inline(always)]
fn sum<S: Simd>(simd: S, row: &[f32], lanes: impl Fn(S::V) -> S::V, one: impl Fn(f32) -> f32) -> f32 {
    let whole = row.len() - row.len() % S::LANES;
    let mut total = simd.splat(0.0);
    for at in (0..whole).step_by(S::LANES) {
        #[expect(unsafe_code, reason = "vector load")]
        // SAFETY: `at + LANES <= row.len()`.
        let x = unsafe { simd.load(row.as_ptr().add(at)) };
        total = simd.add(total, lanes(x));
    }
    simd.sum(total) + row[whole..].iter().map(|&x| one(x)).sum::<f32>()
}

#[inline(always)]
fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(not(feature = "std"))]
    return libm::sqrtf(x);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::isas_under_test;
    use crate::test_util::{numbers, relative_l2};
    use alloc::vec;

    #[test]
    fn every_isa_follows_the_definition() {
        let pool = Pool::new(core::num::NonZeroUsize::new(3).unwrap());
        for isa in isas_under_test() {
            for dim in (1..=33).chain([64, 383, 384]) {
                for (rows, offset) in [(1, 0.0), (35, 0.0), (5, 300.0)] {
                    let input: vec::Vec<f32> =
                        numbers(dim as u64, rows * dim).iter().map(|x| x + offset).collect();
                    let (gamma, beta) = (numbers(1, dim), numbers(2, dim));
                    let params = LayerNorm { gamma: &gamma, beta: &beta, eps: 1e-6 };
                    let mut got = vec![0.0; rows * dim];
                    layer_norm(isa, &pool, &params, &input, &mut got);
                    let want = scalar::layer_norm(&params, &input);
                    // A mean of 300 leaves deviations of about 1 with 300 * 2^-24 of rounding in the input itself.
                    let tolerance = if offset == 0.0 { 1e-6 } else { 4e-5 };
                    let error = relative_l2(&got, &want);
                    assert!(error < tolerance, "{} dim {dim} rows {rows}: {error}", isa.name());
                }
            }
        }
    }
}
