//! Activations in 16-bit floats.

use crate::aligned::{numbers_of, numbers_of_mut};
use crate::disjoint::Disjoint;
use crate::layer_norm::{LayerNorm, Normed};
use crate::simd::half::{Half, HalfKernel, K_ALIGN};
use crate::simd::{MAX_LANES, Simd};
use crate::{AlignedBuffer, Isa, Pool};

/// Rows per parallel task.
const TASK_ROWS: usize = 16;

/// Normalised values that are rounded together.
const CHUNK: usize = 4 * MAX_LANES;

/// Rows rounded to the 16-bit format of one instruction set. Reused from call to call.
#[derive(Default)]
pub struct HalfRows {
    /// `[rows, stride]` of the instruction set's factors, zeros beyond `k`.
    factors: AlignedBuffer<u8>,
    rows: usize,
    /// Values of a row.
    k: usize,
}

/// Rounded rows, borrowed.
#[derive(Clone, Copy)]
pub(super) struct RowsView<'a> {
    /// `[rows, stride]`, each a [`Half::Factor`].
    bytes: &'a [u8],
    /// Factors from row to row: `k` up to [`K_ALIGN`].
    pub(super) stride: usize,
}

impl<'a> RowsView<'a> {
    /// `[rows, stride]`.
    #[inline(always)]
    pub(super) fn factors<H: Half>(self, _half: H) -> &'a [H::Factor] {
        numbers_of(self.bytes)
    }
}

impl HalfRows {
    /// Makes room for `rows` rows of `k` values. Allocates only when it grows beyond what was ever asked for.
    pub fn resize(&mut self, isa: Isa, rows: usize, k: usize) {
        self.factors.resize(rows * k.next_multiple_of(K_ALIGN) * isa.half_factor_bytes());
        (self.rows, self.k) = (rows, k);
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn cols(&self) -> usize {
        self.k
    }

    pub(super) fn view(&self) -> RowsView<'_> {
        RowsView { bytes: &self.factors, stride: self.k.next_multiple_of(K_ALIGN) }
    }
}

/// Rounds every row of `input: [rows, k]`.
///
/// # Panics
/// When `input` is no whole number of rows.
pub fn round_rows(isa: Isa, pool: &Pool, input: &[f32], k: usize, out: &mut HalfRows) {
    run(isa, pool, Source { input, k, norm: None }, out);
}

/// Rounds every row of `layer_norm(input)`, `input: [rows, dim]`, without storing the floats.
///
/// # Panics
/// When lengths disagree.
pub fn layer_norm_rounded(isa: Isa, pool: &Pool, params: &LayerNorm<'_>, input: &[f32], out: &mut HalfRows) {
    let k = params.gamma.len();
    assert_eq!(params.beta.len(), k, "layer_norm_rounded: beta [dim]");
    run(isa, pool, Source { input, k, norm: Some(params) }, out);
}

/// What is rounded.
#[derive(Clone, Copy)]
struct Source<'a> {
    /// `[rows, k]`.
    input: &'a [f32],
    k: usize,
    norm: Option<&'a LayerNorm<'a>>,
}

fn run(isa: Isa, pool: &Pool, source: Source<'_>, out: &mut HalfRows) {
    let Source { input, k, .. } = source;
    assert!(k > 0 && input.len().is_multiple_of(k), "round: input [rows, {k}]");
    let rows = input.len() / k;
    out.resize(isa, rows, k);
    let row_bytes = k.next_multiple_of(K_ALIGN) * isa.half_factor_bytes();
    let factors = Disjoint::new(&mut out.factors[..]);
    pool.run(rows.div_ceil(TASK_ROWS), &|task| {
        let first = task * TASK_ROWS;
        let count = TASK_ROWS.min(rows - first);
        #[expect(unsafe_code, reason = "rows are shared out among tasks")]
        // SAFETY: tasks have disjoint row ranges.
        let factors = unsafe { factors.slice(first * row_bytes, count * row_bytes) };
        let source = Source { input: &input[first * k..][..count * k], ..source };
        isa.run_half(RowsTask { source, factors });
    });
}

struct RowsTask<'a> {
    source: Source<'a>,
    /// `[rows, stride]`, each a [`Half::Factor`].
    factors: &'a mut [u8],
}

impl HalfKernel for RowsTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<H: Half>(self, half: H) {
        let Source { input, k, norm } = self.source;
        let factors: &mut [H::Factor] = numbers_of_mut(self.factors);
        let rows = input.chunks_exact(k).zip(factors.chunks_exact_mut(k.next_multiple_of(K_ALIGN)));
        for (row, factors) in rows {
            let (factors, padding) = factors.split_at_mut(k);
            padding.fill(H::Factor::default());
            match norm {
                None => half.round_factors(row, factors),
                Some(params) => round_normed(half, &Normed::new(half.float(), params, row), factors),
            }
        }
    }
}

/// Rounds a LayerNorm's output piece by piece, so that no row is too wide.
#[inline(always)]
fn round_normed<H: Half>(half: H, values: &Normed<'_>, factors: &mut [H::Factor]) {
    let simd = half.float();
    let mut floats = [0.0; CHUNK];
    for (index, factors) in factors.chunks_mut(CHUNK).enumerate() {
        for at in (0..factors.len()).step_by(<H::Float as Simd>::LANES) {
            let slots = &mut floats[at..][..<H::Float as Simd>::LANES];
            #[expect(unsafe_code, reason = "vector store")]
            // SAFETY: `slots` is LANES long.
            unsafe {
                simd.store(slots.as_mut_ptr(), values.at(simd, index * CHUNK + at));
            }
        }
        half.round_factors(&floats[..factors.len()], factors);
    }
}
