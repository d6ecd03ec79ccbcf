//! Dynamic quantization of activations, one scale and one zero point per row (token).
//!
//! For a row `x`: `low = min(0, min x)`, `high = max(0, max x)`, `scale = (high - low) / 255`,
//! `zero = round(-low / scale)`, `q = clamp(round(x / scale) + zero, 0, 255)`, ties to even, so that
//! `x = scale * (q - zero)` up to half a step, and 0 is exact. A row of (almost) zeros has scale 0. Per row, because
//! single tokens of large models are far out of the others' range; asymmetric, because GELU's output is one-sided.
//!
//! ```
//! use dinov2_kernels::quantize::{QuantizedRows, quantize_rows};
//! use dinov2_kernels::{Isa, Pool};
//!
//! let mut rows = QuantizedRows::default();
//! quantize_rows(Isa::detect(), &Pool::single(), &[-1.0, 0.0, 1.0, 2.0], 2, &mut rows);
//! assert_eq!((rows.rows(), rows.cols()), (2, 2));
//! ```

#[cfg(test)]
pub(crate) mod scalar;

use crate::disjoint::Disjoint;
use crate::layer_norm::{LayerNorm, Normed};
use crate::simd::dot::ROW_ALIGN;
use crate::simd::{Kernel, Simd, load_padded};
use crate::{AlignedBuffer, Isa, Pool};

/// Rows per parallel task.
const TASK_ROWS: usize = 16;

/// Quantized rows, in the layout of one instruction set. Reused from call to call.
#[derive(Default)]
pub struct QuantizedRows {
    /// `[rows, stride]`: the quantized values less the instruction set's offset; what pads a row is arbitrary.
    factors: AlignedBuffer<u8>,
    /// `[rows]`.
    scales: AlignedBuffer<f32>,
    /// `[rows]`, 0 to 255.
    zeros: AlignedBuffer<i32>,
    /// Values of a row.
    k: usize,
}

/// A run of quantized rows, borrowed.
#[derive(Clone, Copy)]
pub(crate) struct RowsView<'a> {
    /// `[rows, stride]`.
    pub(crate) factors: &'a [u8],
    /// Bytes from row to row.
    pub(crate) stride: usize,
    /// `[rows]`.
    pub(crate) scales: &'a [f32],
    /// `[rows]`.
    pub(crate) zeros: &'a [i32],
}

impl QuantizedRows {
    /// Makes room for `rows` rows of `k` values. Allocates only when it grows beyond what was ever asked for.
    pub fn resize(&mut self, rows: usize, k: usize) {
        self.factors.resize(rows * k.next_multiple_of(ROW_ALIGN));
        self.scales.resize(rows);
        self.zeros.resize(rows);
        self.k = k;
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.scales.len()
    }

    /// Values of a row.
    pub fn cols(&self) -> usize {
        self.k
    }

    pub(crate) fn view(&self) -> RowsView<'_> {
        let stride = self.k.next_multiple_of(ROW_ALIGN);
        RowsView { factors: &self.factors, stride, scales: &self.scales, zeros: &self.zeros }
    }
}

/// Quantizes every row of `input: [rows, k]`.
///
/// # Panics
/// When `input` is no whole number of rows.
pub fn quantize_rows(isa: Isa, pool: &Pool, input: &[f32], k: usize, out: &mut QuantizedRows) {
    run(isa, pool, Source { input, k, norm: None }, out);
}

/// Quantizes every row of `layer_norm(input)`, `input: [rows, dim]`, without storing the floats.
///
/// # Panics
/// When lengths disagree.
pub fn layer_norm_quantized(
    isa: Isa,
    pool: &Pool,
    params: &LayerNorm<'_>,
    input: &[f32],
    out: &mut QuantizedRows,
) {
    let k = params.gamma.len();
    assert_eq!(params.beta.len(), k, "layer_norm_quantized: beta [dim]");
    run(isa, pool, Source { input, k, norm: Some(params) }, out);
}

/// What is quantized.
#[derive(Clone, Copy)]
struct Source<'a> {
    /// `[rows, k]`.
    input: &'a [f32],
    k: usize,
    norm: Option<&'a LayerNorm<'a>>,
}

fn run(isa: Isa, pool: &Pool, source: Source<'_>, out: &mut QuantizedRows) {
    let Source { input, k, .. } = source;
    assert!(k > 0 && input.len().is_multiple_of(k), "quantize: input [rows, {k}]");
    let rows = input.len() / k;
    out.resize(rows, k);
    let stride = k.next_multiple_of(ROW_ALIGN);
    let factors = Disjoint::new(&mut out.factors[..]);
    let scales = Disjoint::new(&mut out.scales[..]);
    let zeros = Disjoint::new(&mut out.zeros[..]);
    pool.run(rows.div_ceil(TASK_ROWS), &|task| {
        let first = task * TASK_ROWS;
        let count = TASK_ROWS.min(rows - first);
        #[expect(unsafe_code, reason = "rows are shared out among tasks")]
        // SAFETY: tasks have disjoint row ranges.
        let rows = unsafe {
            RowsTask {
                source: Source { input: &input[first * k..][..count * k], ..source },
                factors: factors.slice(first * stride, count * stride),
                scales: scales.slice(first, count),
                zeros: zeros.slice(first, count),
            }
        };
        isa.run(rows);
    });
}

/// Widest row whose normalised values are kept from the first pass (range) to the second (rounding); of wider rows they
/// are computed twice. A multiple of [`MAX_LANES`].
const BUFFER: usize = 1536;

#[repr(align(64))]
struct Buffer([f32; BUFFER]);

struct RowsTask<'a> {
    source: Source<'a>,
    factors: &'a mut [u8],
    scales: &'a mut [f32],
    zeros: &'a mut [i32],
}

impl Kernel for RowsTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let k = self.source.k;
        let factors = self.factors.chunks_exact_mut(k.next_multiple_of(ROW_ALIGN));
        let params = self.scales.iter_mut().zip(self.zeros);
        let mut buffer = Buffer([0.0; BUFFER]);
        for ((row, factors), (scale, zero)) in self.source.input.chunks_exact(k).zip(factors).zip(params) {
            (*scale, *zero) = match self.source.norm {
                None => quantize_row(simd, Plain { row }, factors),
                Some(params) => {
                    let values = Normed::new(simd, params, row);
                    if k <= BUFFER {
                        for at in (0..k).step_by(S::LANES) {
                            let slots = &mut buffer.0[at..][..S::LANES];
                            #[expect(unsafe_code, reason = "vector store")]
                            // SAFETY: `slots` is LANES long.
                            unsafe {
                                simd.store(slots.as_mut_ptr(), values.at(simd, at));
                            }
                        }
                        quantize_row(simd, Plain { row: &buffer.0[..k] }, factors)
                    } else {
                        quantize_row(simd, values, factors)
                    }
                }
            };
        }
    }
}

/// The values of a row. A trait and not a closure: a closure that is not inlined would run without the instruction set.
trait Values {
    /// How many there are.
    fn len(&self) -> usize;
    /// The vector that starts at `at`, zero beyond the row.
    fn at<S: Simd>(&self, simd: S, at: usize) -> S::V;
}

struct Plain<'a> {
    row: &'a [f32],
}

impl Values for Plain<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.row.len()
    }
    #[inline(always)]
    fn at<S: Simd>(&self, simd: S, at: usize) -> S::V {
        load_padded(simd, self.row, at)
    }
}

impl Values for Normed<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        Normed::len(self)
    }
    #[inline(always)]
    fn at<S: Simd>(&self, simd: S, at: usize) -> S::V {
        Normed::at(self, simd, at)
    }
}

/// Quantizes one row into `factors`, which is padded to whole vectors. Returns scale and zero point.
#[inline(always)]
fn quantize_row<S: Simd>(simd: S, values: impl Values, factors: &mut [u8]) -> (f32, i32) {
    let k = values.len();
    let lanes = S::LANES;
    let (mut low, mut high) = (simd.splat(0.0), simd.splat(0.0));
    for at in (0..k).step_by(lanes) {
        let x = values.at(simd, at);
        (low, high) = (simd.min(x, low), simd.max(x, high));
    }
    let (low, high) = (-simd.largest(simd.sub(simd.splat(0.0), low)), simd.largest(high));
    let (scale, zero) = range_params(low, high);
    let inverse = simd.splat(if scale == 0.0 { 0.0 } else { 1.0 / scale });
    let (zero_lanes, most) = (simd.splat(zero), simd.splat(255.0));
    for at in (0..k).step_by(lanes) {
        // Rounding must come before the zero point is added: a sum that is rounded once differs where both round.
        let whole = simd.round(simd.mul(values.at(simd, at), inverse));
        let factor = simd.min(simd.max(simd.add(whole, zero_lanes), simd.splat(0.0)), most);
        let slots = &mut factors[at..][..lanes];
        #[expect(unsafe_code, reason = "vector store")]
        // SAFETY: `slots` is LANES bytes long.
        unsafe {
            simd.store_factors(slots.as_mut_ptr(), factor);
        }
    }
    (scale, zero as i32)
}

/// Scale and zero point of a row with these extremes, `low <= 0 <= high`.
fn range_params(low: f32, high: f32) -> (f32, f32) {
    let scale = (high - low) / 255.0;
    // A subnormal scale would lose precision and its inverse overflow; such a row is zero for all purposes. Not finite
    // only if the row was not.
    if !(scale >= f32::MIN_POSITIVE && scale.is_finite()) {
        return (0.0, 0.0);
    }
    (scale, libm::rintf(-low / scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::isas_under_test;
    use crate::test_util::numbers;
    use alloc::vec::Vec;

    /// The quantized values of a row, whatever the instruction set stores.
    fn values(isa: Isa, rows: &QuantizedRows, row: usize) -> Vec<u8> {
        let view = rows.view();
        let stored = &view.factors[row * view.stride..][..rows.cols()];
        let offset = isa.run(StoredOffset);
        stored.iter().map(|&byte| byte.wrapping_add(offset as u8)).collect()
    }

    struct StoredOffset;

    impl Kernel for StoredOffset {
        type Output = i32;

        fn run<S: Simd>(self, _simd: S) -> i32 {
            S::STORED_OFFSET
        }
    }

    #[test]
    fn every_isa_equals_the_definition_bit_for_bit() {
        let pool = Pool::new(core::num::NonZeroUsize::new(2).unwrap());
        for isa in isas_under_test() {
            for k in (1..=35).chain([64, 383, 384]) {
                let rows = 19;
                let mut input = numbers(k as u64, rows * k);
                for (row, values) in input.chunks_exact_mut(k).enumerate() {
                    match row {
                        0 => values.fill(0.0),
                        1 => values.iter_mut().for_each(|x| *x = x.abs() * 1e-30),
                        2 => values.iter_mut().for_each(|x| *x = -x.abs() * 1e30),
                        3 => values.iter_mut().for_each(|x| *x *= 1e-42),
                        4 => values[k - 1] = 1e6,
                        5 => values.iter_mut().enumerate().for_each(|(at, x)| *x = (at % 5) as f32 - 2.0),
                        6 => values.fill(f32::MAX / 2.0),
                        _ => {}
                    }
                }
                let mut got = QuantizedRows::default();
                quantize_rows(isa, &pool, &input, k, &mut got);
                for (row, x) in input.chunks_exact(k).enumerate() {
                    let (want, scale, zero) = scalar::quantize_row(x);
                    assert_eq!(values(isa, &got, row), want, "{} k {k} row {row}", isa.name());
                    assert_eq!((got.scales[row], got.zeros[row]), (scale, zero), "{} k {k}", isa.name());
                }
            }
        }
    }

    #[test]
    fn the_fused_layer_norm_is_within_a_step_of_the_two_apart() {
        let pool = Pool::single();
        for isa in isas_under_test() {
            for dim in [1, 7, 8, 33, 384] {
                let (input, gamma, beta) = (numbers(1, 5 * dim), numbers(2, dim), numbers(3, dim));
                let params = LayerNorm { gamma: &gamma, beta: &beta, eps: 1e-6 };
                let mut fused = QuantizedRows::default();
                layer_norm_quantized(isa, &pool, &params, &input, &mut fused);
                let normed = crate::layer_norm::scalar::layer_norm(&params, &input);
                for (row, x) in normed.chunks_exact(dim).enumerate() {
                    let (scale, zero) = (fused.scales[row], fused.zeros[row]);
                    for (&q, &x) in values(isa, &fused, row).iter().zip(x) {
                        let back = scale * (i32::from(q) - zero) as f32;
                        // Half a step of rounding, as much again where the zero point was rounded.
                        assert!((back - x).abs() <= scale * 1.01 + 1e-6, "{} {dim}: {back} {x}", isa.name());
                    }
                }
            }
        }
    }
}
