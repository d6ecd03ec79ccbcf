//! Multi-head self-attention with an online softmax: `softmax(q · kᵀ / sqrt(head_dim)) · v` per head, never holding
//! more than a tile's worth of scores (Dao et al. 2022, FlashAttention, forward pass).
//!
//! Input is the output of the fused projection, `qkv: [n, 3 * dim]`: queries, keys, values, each heads side by side.
//! Keys and values are first packed per head into the panels of the GEMM micro-kernel ([`KeyValuePanels`]); then each
//! task takes a block of queries of one head through all keys, a block of keys at a time. The running sum of values
//! lives in the output itself.
//!
//! ```
//! use dinov2_kernels::attention::{AttentionShape, KeyValuePanels, attention};
//! use dinov2_kernels::{Isa, Pool};
//!
//! // Two tokens, one head of width 2. Queries are zero, so each token attends to both values alike.
//! let shape = AttentionShape { tokens: 2, heads: 1, head_dim: 2 };
//! let qkv = [[0.0, 0.0, 1.0, 2.0, 10.0, 20.0], [0.0, 0.0, 3.0, 4.0, 30.0, 40.0]].concat();
//! let mut out = [0.0; 4];
//! attention(Isa::detect(), &Pool::single(), shape, &qkv, &mut KeyValuePanels::default(), &mut out);
//! assert!(out.iter().zip([20.0, 30.0, 20.0, 30.0]).all(|(got, want)| (got - want).abs() < 1e-4));
//! ```

#[cfg(test)]
pub(crate) mod scalar;

use core::ops::Range;

use crate::disjoint::Disjoint;
use crate::gemm_f32::tile::{self, Rows, for_rows};
use crate::simd::{Kernel, MAX_LANES, MAX_TILE_ROWS, Simd};
use crate::{AlignedBuffer, Isa, Pool, activation};

/// Keys whose scores are held at once. With 64-wide heads, this many keys and values take 128 KiB.
const KEY_BLOCK: usize = 256;

/// Tiles of queries that one task takes through the keys together.
const QUERY_TILES: usize = 8;

/// Keys that one packing task takes.
const PACK_KEYS: usize = 128;

/// Sizes of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Tokens.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    pub(crate) fn dim(self) -> usize {
        self.heads * self.head_dim
    }

    /// Factor of the scores.
    pub(crate) fn scale(self) -> f32 {
        let head_dim = self.head_dim as f32;
        #[cfg(feature = "std")]
        return 1.0 / head_dim.sqrt();
        #[cfg(not(feature = "std"))]
        return 1.0 / libm::sqrtf(head_dim);
    }
}

/// Scratch: keys and values of all heads in the layout of the micro-kernel. Reused from call to call.
#[derive(Default)]
pub struct KeyValuePanels {
    /// `[heads][ceil(tokens / panel_cols)][head_dim][panel_cols]`.
    keys: AlignedBuffer,
    /// `[heads][ceil(head_dim / panel_cols)][tokens][panel_cols]`.
    values: AlignedBuffer,
}

/// Lengths of one head's panels.
#[derive(Clone, Copy)]
struct PanelLayout {
    shape: AttentionShape,
    panel_cols: usize,
}

impl PanelLayout {
    fn keys_len(self) -> usize {
        self.shape.tokens.next_multiple_of(self.panel_cols) * self.shape.head_dim
    }

    fn values_len(self) -> usize {
        self.shape.head_dim.next_multiple_of(self.panel_cols) * self.shape.tokens
    }
}

/// Writes `out: [n, dim]`, heads side by side, from `qkv: [n, 3 * dim]`.
///
/// # Panics
/// When lengths disagree with the shape.
pub fn attention(
    isa: Isa,
    pool: &Pool,
    shape: AttentionShape,
    qkv: &[f32],
    scratch: &mut KeyValuePanels,
    out: &mut [f32],
) {
    let AttentionShape { tokens, heads, head_dim } = shape;
    assert!(tokens > 0 && heads > 0 && head_dim > 0, "attention: sizes above zero");
    assert_eq!(qkv.len(), tokens * 3 * shape.dim(), "attention: qkv [n, 3 * dim]");
    assert_eq!(out.len(), tokens * shape.dim(), "attention: out [n, dim]");
    let layout = PanelLayout { shape, panel_cols: isa.panel_cols() };
    scratch.keys.resize(heads * layout.keys_len());
    scratch.values.resize(heads * layout.values_len());
    pack(pool, layout, qkv, scratch);
    let out = Disjoint::new(out);
    let task_rows = QUERY_TILES * isa.tile_rows();
    let row_tasks = tokens.div_ceil(task_rows);
    pool.run(heads * row_tasks, &|task| {
        let (head, first) = (task / row_tasks, task % row_tasks * task_rows);
        isa.run(QueryBlock {
            shape,
            head,
            queries: first..(first + task_rows).min(tokens),
            qkv,
            keys: &scratch.keys[head * layout.keys_len()..][..layout.keys_len()],
            values: &scratch.values[head * layout.values_len()..][..layout.values_len()],
            out: &out,
        });
    });
}

/// Copies keys and values into panels, zero-padded.
fn pack(pool: &Pool, layout: PanelLayout, qkv: &[f32], scratch: &mut KeyValuePanels) {
    let PanelLayout { shape: AttentionShape { tokens, heads, head_dim }, panel_cols } = layout;
    let dim = layout.shape.dim();
    let keys = Disjoint::new(&mut scratch.keys[..]);
    let values = Disjoint::new(&mut scratch.values[..]);
    let pack_keys = PACK_KEYS.next_multiple_of(panel_cols);
    let key_tasks = tokens.div_ceil(pack_keys);
    pool.run(heads * key_tasks, &|task| {
        let (head, first) = (task / key_tasks, task % key_tasks * pack_keys);
        let last = (first + pack_keys).min(tokens);
        let row =
            |token: usize, part: usize| &qkv[token * 3 * dim + part * dim + head * head_dim..][..head_dim];
        for panel_start in (first..last).step_by(panel_cols) {
            #[expect(unsafe_code, reason = "panels are shared out among tasks")]
            // SAFETY: each panel of keys belongs to one task.
            let panel = unsafe {
                keys.slice(head * layout.keys_len() + panel_start * head_dim, panel_cols * head_dim)
            };
            for column in 0..panel_cols {
                let slots = panel.iter_mut().skip(column).step_by(panel_cols);
                if panel_start + column < tokens {
                    slots.zip(row(panel_start + column, 1)).for_each(|(slot, &value)| *slot = value);
                } else {
                    slots.for_each(|slot| *slot = 0.0);
                }
            }
        }
        for (panel, panel_start) in (0..head_dim).step_by(panel_cols).enumerate() {
            let width = panel_cols.min(head_dim - panel_start);
            let start = head * layout.values_len() + (panel * tokens + first) * panel_cols;
            #[expect(unsafe_code, reason = "panels are shared out among tasks")]
            // SAFETY: each run of value rows belongs to one task.
            let rows = unsafe { values.slice(start, (last - first) * panel_cols) };
            for (token, slots) in (first..last).zip(rows.chunks_exact_mut(panel_cols)) {
                slots[..width].copy_from_slice(&row(token, 2)[panel_start..][..width]);
                slots[width..].fill(0.0);
            }
        }
    });
}

/// The work of one task: some queries of one head against all keys.
struct QueryBlock<'a> {
    shape: AttentionShape,
    head: usize,
    queries: Range<usize>,
    qkv: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    out: &'a Disjoint<'a, f32>,
}

/// Running softmax statistics of a tile's rows, and the tile's scores against one block of keys.
struct TileState {
    /// Largest score so far, unscaled.
    largest: [f32; MAX_TILE_ROWS],
    /// Sum of the weights so far, relative to `largest`.
    total: [f32; MAX_TILE_ROWS],
}

#[repr(align(64))]
struct Scores([f32; MAX_TILE_ROWS * KEY_BLOCK]);

impl Kernel for QueryBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        const { assert!(KEY_BLOCK.is_multiple_of(2 * MAX_LANES)) };
        let mut scores = Scores([0.0; MAX_TILE_ROWS * KEY_BLOCK]);
        let mut states: [TileState; QUERY_TILES] = core::array::from_fn(|_| TileState {
            largest: [f32::NEG_INFINITY; MAX_TILE_ROWS],
            total: [0.0; MAX_TILE_ROWS],
        });
        for first_key in (0..self.shape.tokens).step_by(KEY_BLOCK) {
            let keys = first_key..(first_key + KEY_BLOCK).min(self.shape.tokens);
            for (query, state) in self.queries.clone().step_by(S::TILE_ROWS).zip(&mut states) {
                let rows = S::TILE_ROWS.min(self.queries.end - query);
                for_rows(
                    simd,
                    rows,
                    Tile { block: &self, query, keys: keys.clone(), state, scores: &mut scores },
                );
            }
        }
        for (query, state) in self.queries.clone().step_by(S::TILE_ROWS).zip(&states) {
            for (query, total) in (query..self.queries.end).zip(&state.total[..S::TILE_ROWS]) {
                self.out_row(query).iter_mut().for_each(|value| *value *= 1.0 / total);
            }
        }
    }
}

impl QueryBlock<'_> {
    /// This head's part of a token's output row, `[head_dim]`.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "a task's own rows of a shared output")]
    fn out_row(&self, query: usize) -> &mut [f32] {
        let AttentionShape { head_dim, .. } = self.shape;
        #[expect(unsafe_code, reason = "rows are shared out among tasks")]
        // SAFETY: this task alone writes these queries of this head, and holds one row at a time.
        unsafe {
            self.out.slice(query * self.shape.dim() + self.head * head_dim, head_dim)
        }
    }
}

/// One tile of queries against one block of keys.
struct Tile<'a> {
    block: &'a QueryBlock<'a>,
    query: usize,
    keys: Range<usize>,
    state: &'a mut TileState,
    scores: &'a mut Scores,
}

impl Rows for Tile<'_> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(mut self, simd: S) {
        self.score::<S, ROWS>(simd);
        let mut correction = [0.0f32; ROWS];
        for (row, correction) in correction.iter_mut().enumerate() {
            *correction = self.weigh(simd, row);
        }
        self.accumulate::<S, ROWS>(simd, &correction);
    }
}

impl Tile<'_> {
    /// `scores[row][key] = q · k` for the block; the padding of the last panel becomes -inf.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
    fn score<S: Simd, const ROWS: usize>(&mut self, simd: S) {
        let QueryBlock { shape, head, qkv, keys, .. } = *self.block;
        let (head_dim, stride, panel_cols) = (shape.head_dim, 3 * shape.dim(), 2 * S::LANES);
        let queries = &qkv[self.query * stride + head * head_dim..][..(ROWS - 1) * stride + head_dim];
        for key in self.keys.clone().step_by(panel_cols) {
            let panel = &keys[key * head_dim..][..panel_cols * head_dim];
            // SAFETY: `queries` spans ROWS rows `stride` apart, `panel` is head_dim rows of two vectors.
            let sums =
                unsafe { tile::product::<S, ROWS>(simd, queries.as_ptr(), stride, panel.as_ptr(), head_dim) };
            for (row, sum) in sums.into_iter().enumerate() {
                let slots = &mut self.scores.0[row * KEY_BLOCK + key - self.keys.start..][..panel_cols];
                // SAFETY: `slots` is two vectors long.
                unsafe {
                    simd.store(slots.as_mut_ptr(), sum[0]);
                    simd.store(slots.as_mut_ptr().add(S::LANES), sum[1]);
                }
            }
        }
        let (valid, padded) = (self.keys.len(), self.keys.len().next_multiple_of(panel_cols));
        for row in 0..ROWS {
            self.scores.0[row * KEY_BLOCK..][valid..padded].fill(f32::NEG_INFINITY);
        }
    }

    /// Turns a row of scores into weights relative to the largest score so far, adds them to the row's total and
    /// returns the factor by which everything before has to shrink.
    #[inline(always)]
    #[expect(unsafe_code, reason = "vector loads and stores")]
    fn weigh<S: Simd>(&mut self, simd: S, row: usize) -> f32 {
        let scale_log2 = self.block.shape.scale() * core::f32::consts::LOG2_E;
        let padded = self.keys.len().next_multiple_of(2 * S::LANES);
        let scores = &mut self.scores.0[row * KEY_BLOCK..][..padded];
        let mut largest = simd.splat(self.state.largest[row]);
        for at in (0..padded).step_by(S::LANES) {
            // SAFETY: `at + LANES <= padded`, the length of `scores`.
            largest = simd.max(unsafe { simd.load(scores.as_ptr().add(at)) }, largest);
        }
        let largest = simd.largest(largest);
        let (factor, shift) = (simd.splat(scale_log2), simd.splat(largest));
        let mut total = simd.splat(0.0);
        for at in (0..padded).step_by(S::LANES) {
            // SAFETY: `at + LANES <= padded`, the length of `scores`; the load ends before the store to the same place begins.
            unsafe {
                let score = simd.load(scores.as_ptr().add(at));
                let weight = activation::exp2(simd, simd.mul(simd.sub(score, shift), factor));
                simd.store(scores.as_mut_ptr().add(at), weight);
                total = simd.add(total, weight);
            }
        }
        let before = (self.state.largest[row] - largest) * scale_log2;
        let correction = if before == f32::NEG_INFINITY { 0.0 } else { exp2_scalar(before) };
        self.state.largest[row] = largest;
        self.state.total[row] = self.state.total[row] * correction + simd.sum(total);
        correction
    }

    /// `out = out * correction + weights · values`.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
    fn accumulate<S: Simd, const ROWS: usize>(&mut self, simd: S, correction: &[f32; ROWS]) {
        let AttentionShape { tokens, head_dim, .. } = self.block.shape;
        let (panel_cols, count) = (2 * S::LANES, self.keys.len());
        let first_block = self.keys.start == 0;
        for (panel, column) in (0..head_dim).step_by(panel_cols).enumerate() {
            let values =
                &self.block.values[(panel * tokens + self.keys.start) * panel_cols..][..count * panel_cols];
            // SAFETY: the scores hold ROWS rows KEY_BLOCK apart with `count` weights each; `values` is `count` rows.
            let sums = unsafe {
                tile::product::<S, ROWS>(simd, self.scores.0.as_ptr(), KEY_BLOCK, values.as_ptr(), count)
            };
            let width = panel_cols.min(head_dim - column);
            for (row, sum) in sums.into_iter().enumerate() {
                let out = &mut self.block.out_row(self.query + row)[column..][..width];
                if width == panel_cols {
                    // SAFETY: `out` is two vectors long.
                    unsafe { add_scaled(simd, out.as_mut_ptr(), correction[row], sum, first_block) };
                } else {
                    let mut lanes = [0.0f32; 2 * MAX_LANES];
                    lanes[..width].copy_from_slice(out);
                    // SAFETY: `lanes` is at least two vectors long.
                    unsafe { add_scaled(simd, lanes.as_mut_ptr(), correction[row], sum, first_block) };
                    out.copy_from_slice(&lanes[..width]);
                }
            }
        }
    }
}

/// `to = to * factor + sum` for two vectors; the first time, `to` holds nothing yet.
///
/// # Safety
/// `to` is valid for reading and writing two vectors.
#[inline(always)]
#[expect(unsafe_code, reason = "vector loads and stores")]
unsafe fn add_scaled<S: Simd>(simd: S, to: *mut f32, factor: f32, sum: [S::V; 2], first: bool) {
    // SAFETY: the caller vouches for two vectors.
    unsafe {
        for (half, sum) in sum.into_iter().enumerate() {
            let to = to.add(half * S::LANES);
            let value = if first { sum } else { simd.mul_add(simd.load(to), simd.splat(factor), sum) };
            simd.store(to, value);
        }
    }
}

pub(crate) fn exp2_scalar(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.exp2();
    #[cfg(not(feature = "std"))]
    return libm::exp2f(x);
}

/// Attention of the first token (CLS) to all tokens, after softmax: `out: [heads, n]` from `qkv: [n, 3 * dim]`.
///
/// # Panics
/// When lengths disagree with the shape.
pub fn cls_attention(shape: AttentionShape, qkv: &[f32], out: &mut [f32]) {
    let AttentionShape { tokens, heads, head_dim } = shape;
    let dim = shape.dim();
    assert_eq!(qkv.len(), tokens * 3 * dim, "cls_attention: qkv [n, 3 * dim]");
    assert_eq!(out.len(), heads * tokens, "cls_attention: out [heads, n]");
    for (head, weights) in out.chunks_exact_mut(tokens).enumerate() {
        let query = &qkv[head * head_dim..][..head_dim];
        for (token, weight) in qkv.chunks_exact(3 * dim).zip(weights.iter_mut()) {
            let key = &token[dim + head * head_dim..][..head_dim];
            *weight = query.iter().zip(key).map(|(q, k)| q * k).sum::<f32>() * shape.scale();
        }
        let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        weights.iter_mut().for_each(|w| *w = exp2_scalar((*w - largest) * core::f32::consts::LOG2_E));
        let total: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::isas_under_test;
    use crate::test_util::{numbers, relative_l2, token_counts};
    use alloc::vec;
    use alloc::vec::Vec;

    fn check(isas: &[Isa], pool: &Pool, shape: AttentionShape, spread: f32) {
        let qkv: Vec<f32> = numbers(9, shape.tokens * 3 * shape.dim()).iter().map(|x| x * spread).collect();
        let (want, cls) = scalar::attention(shape, &qkv);
        for &isa in isas {
            let mut got = vec![f32::NAN; shape.tokens * shape.dim()];
            attention(isa, pool, shape, &qkv, &mut KeyValuePanels::default(), &mut got);
            let error = relative_l2(&got, &want);
            assert!(error < 2e-6, "{} {shape:?} spread {spread}: {error}", isa.name());
        }
        let mut got = vec![0.0; shape.heads * shape.tokens];
        cls_attention(shape, &qkv, &mut got);
        assert!(relative_l2(&got, &cls) < 2e-6, "{shape:?}");
    }

    #[test]
    fn every_isa_follows_the_definition() {
        let pool = Pool::new(core::num::NonZeroUsize::new(2).unwrap());
        let isas = isas_under_test();
        for tokens in token_counts() {
            for (heads, head_dim) in [(1, 64), (2, 5), (3, 24)] {
                check(&isas, &pool, AttentionShape { tokens, heads, head_dim }, 1.0);
            }
        }
        for spread in [1e-3, 4.0] {
            check(&isas, &pool, AttentionShape { tokens: 300, heads: 2, head_dim: 64 }, spread);
        }
    }

    #[test]
    fn scores_far_apart_neither_overflow_nor_vanish() {
        // The largest score comes last, so that everything before it must be forgotten.
        let shape = AttentionShape { tokens: 520, heads: 1, head_dim: 16 };
        let mut qkv = numbers(11, shape.tokens * 3 * 16);
        for (token, row) in qkv.chunks_exact_mut(48).enumerate() {
            row[..16].fill(10.0);
            row[16..32].fill(token as f32 - 400.0);
        }
        for isa in isas_under_test() {
            let mut out = vec![0.0; shape.tokens * 16];
            attention(isa, &Pool::single(), shape, &qkv, &mut KeyValuePanels::default(), &mut out);
            let last_value = &qkv[519 * 48 + 32..][..16];
            assert!(out.chunks_exact(16).all(|row| relative_l2(row, last_value) < 1e-6), "{}", isa.name());
        }
    }
}
