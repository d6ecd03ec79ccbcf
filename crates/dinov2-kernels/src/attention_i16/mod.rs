//! Multi-head self-attention in 16-bit integers, for engines whose matrices are int8 or 16-bit floats.
//!
//! As [`crate::attention`]: an online softmax over blocks of keys, input `qkv: [n, 3 * dim]` in f32, output `[n, dim]`.
//! Queries are quantized per row, keys per head, values per head and channel, softmax weights to 14 bits; sums are
//! exact in 32 bits. Every factor has at least twice the precision of bf16, at twice the products per instruction of
//! f32 (`vpmaddwd`, `vpdpwssd`).
//!
//! Limits on the factors keep sums within an i32: `query_key_limit`, and `WEIGHT_LIMIT` with `VALUE_LIMIT`.
//!
//! ```
//! use dinov2_kernels::attention::AttentionShape;
//! use dinov2_kernels::attention_i16::{KeyValuePanelsI16, attention_i16, is_supported};
//! use dinov2_kernels::{Isa, Pool};
//!
//! let (isa, shape) = (Isa::detect(), AttentionShape { tokens: 2, heads: 1, head_dim: 2 });
//! if is_supported(isa, shape) {
//!     let qkv = [[0.0, 0.0, 1.0, 2.0, 10.0, 20.0], [0.0, 0.0, 3.0, 4.0, 30.0, 40.0]].concat();
//!     let mut out = [0.0; 4];
//!     attention_i16(isa, &Pool::single(), shape, &qkv, &mut KeyValuePanelsI16::default(), &mut out);
//!     assert!(out.iter().zip([20.0, 30.0, 20.0, 30.0]).all(|(got, want)| (got - want).abs() < 0.2));
//! }
//! ```

mod pack;

use core::ops::Range;

use crate::attention::{AttentionShape, exp2_scalar};
use crate::disjoint::Disjoint;
use crate::simd::dot::{Dot, DotKernel, DotRows, for_dot_rows};
use crate::simd::{MAX_LANES, MAX_TILE_ROWS, Simd, load_padded};
use crate::{AlignedBuffer, Isa, Pool, activation};

/// Keys whose scores are held at once.
const KEY_BLOCK: usize = 256;

/// Tiles of queries that one task takes through the keys, one after the other.
const QUERY_TILES: usize = 4;

/// Binary logarithm of [`WEIGHT_LIMIT`].
const LOG2_WEIGHT_LIMIT: f32 = 13.999_912;

/// Largest softmax weight: 14 bits.
const WEIGHT_LIMIT: i64 = 16383;

/// Largest magnitude of a value, in units of its head's and channel's scale.
pub const VALUE_LIMIT: i64 = 511;

const _: () =
    assert!(WEIGHT_LIMIT * VALUE_LIMIT * (KEY_BLOCK as i64) < 1 << 31, "sums of a block fit an i32");

/// Widest head: one row of queries per tile lies in a buffer of this width.
const MAX_HEAD_DIM: usize = 256;

/// Largest magnitude of queries (in units of the row's scale in a head) and keys (of the head's): `head_dim` products stay
/// below 2^31.
pub fn query_key_limit(head_dim: usize) -> f32 {
    libm::floorf(libm::sqrtf(i32::MAX as f32 / head_dim as f32)).min(32767.0) - 1.0
}

/// Scratch: keys and values of all heads, quantized. Reused from call to call.
#[derive(Default)]
pub struct KeyValuePanelsI16 {
    /// `[heads][panels of keys][pairs of channels][panel_cols][2]`.
    keys: AlignedBuffer<i16>,
    /// `[heads][panels of channels][pairs of tokens][panel_cols][2]`.
    values: AlignedBuffer<i16>,
    /// What one unit of a key is worth, `[heads]`.
    key_scales: AlignedBuffer<f32>,
    /// What one unit of a value is worth, `[heads][head_dim padded to panels]`.
    value_scales: AlignedBuffer<f32>,
}

/// Lengths of one head's panels.
#[derive(Clone, Copy)]
struct Layout {
    shape: AttentionShape,
    panel_cols: usize,
    /// [`query_key_limit`] of the shape.
    limit: f32,
}

impl Layout {
    /// Pairs of channels, the last padded with zeros.
    fn channel_pairs(self) -> usize {
        self.shape.head_dim.div_ceil(2)
    }

    /// Pairs of tokens, the last padded with zeros.
    fn token_pairs(self) -> usize {
        self.shape.tokens.div_ceil(2)
    }

    /// Channels in whole panels.
    fn padded_dim(self) -> usize {
        self.shape.head_dim.next_multiple_of(self.panel_cols)
    }

    fn keys_len(self) -> usize {
        self.shape.tokens.next_multiple_of(self.panel_cols) * 2 * self.channel_pairs()
    }

    fn values_len(self) -> usize {
        self.padded_dim() * 2 * self.token_pairs()
    }
}

/// Whether [`attention_i16`] runs a shape on this instruction set, and is faster there than [`crate::attention`].
pub fn is_supported(isa: Isa, shape: AttentionShape) -> bool {
    shape.head_dim <= MAX_HEAD_DIM && isa.run_dot(FastI16)
}

struct FastI16;

impl DotKernel for FastI16 {
    type Output = bool;

    fn run<D: Dot>(self, _dot: D) -> bool {
        D::FAST_I16
    }
}

/// Writes `out: [n, dim]`, heads side by side, from `qkv: [n, 3 * dim]`.
///
/// # Panics
/// When lengths disagree with the shape, or the heads are wider than 256.
pub fn attention_i16(
    isa: Isa,
    pool: &Pool,
    shape: AttentionShape,
    qkv: &[f32],
    scratch: &mut KeyValuePanelsI16,
    out: &mut [f32],
) {
    let AttentionShape { tokens, heads, head_dim } = shape;
    assert!(tokens > 0 && heads > 0 && head_dim > 0, "attention_i16: sizes above zero");
    assert!(head_dim <= MAX_HEAD_DIM, "attention_i16: heads of at most {MAX_HEAD_DIM}, got {head_dim}");
    assert_eq!(qkv.len(), tokens * 3 * shape.dim(), "attention_i16: qkv [n, 3 * dim]");
    assert_eq!(out.len(), tokens * shape.dim(), "attention_i16: out [n, dim]");
    let layout = Layout { shape, panel_cols: isa.panel_cols(), limit: query_key_limit(head_dim) };
    pack::pack(isa, pool, layout, qkv, scratch);
    let out = Disjoint::new(out);
    let task_rows = QUERY_TILES * isa.dot_tile_rows();
    let row_tasks = tokens.div_ceil(task_rows);
    pool.run(heads * row_tasks, &|task| {
        let (head, first) = (task / row_tasks, task % row_tasks * task_rows);
        isa.run_dot(QueryBlock {
            layout,
            head,
            queries: first..(first + task_rows).min(tokens),
            qkv,
            keys: &scratch.keys[head * layout.keys_len()..][..layout.keys_len()],
            values: &scratch.values[head * layout.values_len()..][..layout.values_len()],
            key_scale: scratch.key_scales[head],
            value_scales: &scratch.value_scales[head * layout.padded_dim()..][..layout.padded_dim()],
            out: &out,
        });
    });
}

/// The work of one task: some queries of one head against all keys.
struct QueryBlock<'a> {
    layout: Layout,
    head: usize,
    queries: Range<usize>,
    /// `[n, 3 * dim]`.
    qkv: &'a [f32],
    keys: &'a [i16],
    values: &'a [i16],
    key_scale: f32,
    value_scales: &'a [f32],
    out: &'a Disjoint<'a, f32>,
}

/// A tile of queries, quantized, and its running softmax statistics.
struct TileState {
    /// `[rows][MAX_HEAD_DIM]`.
    queries: [i16; MAX_TILE_ROWS * MAX_HEAD_DIM],
    /// Binary exponent of the softmax that one unit of a score is worth.
    unit: [f32; MAX_TILE_ROWS],
    /// Largest score so far, in units.
    largest: [f32; MAX_TILE_ROWS],
    /// Sum of the weights so far, relative to `largest`.
    total: [f32; MAX_TILE_ROWS],
}

/// Scores of a tile against a block of keys, the weights that come of them, and the sums of weighted values so far.
#[repr(align(64))]
struct Buffers {
    /// `[rows][KEY_BLOCK]`, in units.
    scores: [f32; MAX_TILE_ROWS * KEY_BLOCK],
    /// `[rows][KEY_BLOCK]`.
    weights: [i16; MAX_TILE_ROWS * KEY_BLOCK],
    /// `[rows][MAX_HEAD_DIM]`, in units of weights and values.
    sums: [f32; MAX_TILE_ROWS * MAX_HEAD_DIM],
}

impl DotKernel for QueryBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, dot: D) {
        const { assert!(KEY_BLOCK.is_multiple_of(2 * MAX_LANES)) };
        let mut buffers = Buffers {
            scores: [0.0; MAX_TILE_ROWS * KEY_BLOCK],
            weights: [0; MAX_TILE_ROWS * KEY_BLOCK],
            sums: [0.0; MAX_TILE_ROWS * MAX_HEAD_DIM],
        };
        let mut state = TileState {
            queries: [0; MAX_TILE_ROWS * MAX_HEAD_DIM],
            unit: [0.0; MAX_TILE_ROWS],
            largest: [0.0; MAX_TILE_ROWS],
            total: [0.0; MAX_TILE_ROWS],
        };
        for query in self.queries.clone().step_by(D::TILE_ROWS) {
            let rows = D::TILE_ROWS.min(self.queries.end - query);
            for_dot_rows(dot, rows, Tile { task: &self, query, state: &mut state, buffers: &mut buffers });
        }
    }
}

/// One tile of queries against all keys.
struct Tile<'a> {
    task: &'a QueryBlock<'a>,
    query: usize,
    state: &'a mut TileState,
    buffers: &'a mut Buffers,
}

impl DotRows for Tile<'_> {
    #[inline(always)]
    fn run<D: Dot, const ROWS: usize>(mut self, dot: D) {
        let tokens = self.task.layout.shape.tokens;
        for row in 0..ROWS {
            self.quantize_query(dot, row);
        }
        for first in (0..tokens).step_by(KEY_BLOCK) {
            let keys = first..(first + KEY_BLOCK).min(tokens);
            let largest = self.score::<D, ROWS>(dot, keys.clone());
            let mut correction = [0.0f32; ROWS];
            for (row, correction) in correction.iter_mut().enumerate() {
                *correction = self.weigh(dot, row, keys.len(), largest[row]);
            }
            self.accumulate::<D, ROWS>(dot, keys, &correction);
        }
        for row in 0..ROWS {
            self.write(row);
        }
    }
}

impl Tile<'_> {
    /// Quantizes a query and starts its statistics.
    #[inline(always)]
    #[expect(unsafe_code, reason = "vector loads and stores")]
    fn quantize_query<D: Dot>(&mut self, dot: D, row: usize) {
        let Layout { shape, limit, .. } = self.task.layout;
        let (simd, lanes) = (dot.float(), <D::Float as Simd>::LANES);
        let source = (self.query + row) * 3 * shape.dim() + self.task.head * shape.head_dim;
        let query = &self.task.qkv[source..][..shape.head_dim];
        let scale = step(largest_magnitude(simd, query, 0.0), limit);
        let inverse = simd.splat(if scale == 0.0 { 0.0 } else { 1.0 / scale });
        let padded = shape.head_dim.next_multiple_of(lanes);
        let slots = &mut self.state.queries[row * MAX_HEAD_DIM..][..padded];
        for at in (0..padded).step_by(lanes) {
            // SAFETY: `slots` is `padded` long, a whole number of vectors.
            unsafe {
                let x = simd.mul(load_padded(simd, query, at), inverse);
                simd.store_i16(slots.as_mut_ptr().add(at), x);
            }
        }
        self.state.unit[row] = scale * self.task.key_scale * shape.scale() * core::f32::consts::LOG2_E;
        self.state.largest[row] = f32::NEG_INFINITY;
        self.state.total[row] = 0.0;
        self.buffers.sums[row * MAX_HEAD_DIM..][..self.task.layout.padded_dim()].fill(0.0);
    }

    /// `scores[row][key] = q · k` in units for the block; the padding of the last panel becomes -inf. Returns the
    /// largest score of each row so far.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
    fn score<D: Dot, const ROWS: usize>(&mut self, dot: D, keys: Range<usize>) -> [f32; ROWS] {
        let (simd, lanes) = (dot.float(), <D::Float as Simd>::LANES);
        let Layout { shape: AttentionShape { tokens, .. }, panel_cols, .. } = self.task.layout;
        let pairs = self.task.layout.channel_pairs();
        let mut largest: [_; ROWS] = core::array::from_fn(|row| simd.splat(self.state.largest[row]));
        for key in keys.clone().step_by(panel_cols) {
            let panel = &self.task.keys[key * 2 * pairs..][..panel_cols * 2 * pairs];
            // SAFETY: the queries are ROWS rows MAX_HEAD_DIM apart, `panel` is `pairs` rows of two vectors of pairs.
            let sums = unsafe {
                dot.product_i16::<ROWS>(self.state.queries.as_ptr(), MAX_HEAD_DIM, panel.as_ptr(), pairs)
            };
            for (row, sum) in sums.into_iter().enumerate() {
                let scores = &mut self.buffers.scores[row * KEY_BLOCK + key - keys.start..][..panel_cols];
                let sum = [simd.to_f32(sum[0]), simd.to_f32(sum[1])];
                // SAFETY: `scores` is two vectors long.
                unsafe {
                    simd.store(scores.as_mut_ptr(), sum[0]);
                    simd.store(scores.as_mut_ptr().add(lanes), sum[1]);
                }
                if key + panel_cols <= tokens {
                    largest[row] = simd.max(simd.max(sum[0], sum[1]), largest[row]);
                } else {
                    scores[tokens - key..].fill(f32::NEG_INFINITY);
                    // SAFETY: `scores` is two vectors long.
                    let sum = unsafe { [simd.load(scores.as_ptr()), simd.load(scores.as_ptr().add(lanes))] };
                    largest[row] = simd.max(simd.max(sum[0], sum[1]), largest[row]);
                }
            }
        }
        core::array::from_fn(|row| simd.largest(largest[row]))
    }

    /// Turns a row of scores into weights relative to the largest score so far, adds them to the row's total and
    /// returns the factor by which everything before has to shrink.
    #[inline(always)]
    #[expect(unsafe_code, reason = "vector loads and stores")]
    fn weigh<D: Dot>(&mut self, dot: D, row: usize, keys: usize, largest: f32) -> f32 {
        let (simd, lanes) = (dot.float(), <D::Float as Simd>::LANES);
        let unit = self.state.unit[row];
        let padded = keys.next_multiple_of(2 * lanes);
        let scores = &self.buffers.scores[row * KEY_BLOCK..][..padded];
        let weights = &mut self.buffers.weights[row * KEY_BLOCK..][..padded];
        // Weights come out as 2^(...) * WEIGHT_LIMIT. All but the padding are finite, so the largest is, too.
        let shift = simd.splat(LOG2_WEIGHT_LIMIT - largest * unit);
        let (factor, mut total) = (simd.splat(unit), simd.splat(0.0));
        for at in (0..padded).step_by(lanes) {
            // SAFETY: `at + LANES <= padded`, the length of `scores` and `weights`.
            unsafe {
                let exponent = simd.mul_add(simd.load(scores.as_ptr().add(at)), factor, shift);
                let weight = simd.round(activation::exp2_coarse(simd, exponent));
                total = simd.add(total, weight);
                simd.store_i16(weights.as_mut_ptr().add(at), weight);
            }
        }
        let before = self.state.largest[row];
        let correction = if before == f32::NEG_INFINITY {
            0.0
        } else if before == largest {
            1.0
        } else {
            exp2_scalar((before - largest) * unit)
        };
        self.state.largest[row] = largest;
        self.state.total[row] = self.state.total[row] * correction + simd.sum(total);
        correction
    }

    /// `sums = sums * correction + weights · values`.
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
    fn accumulate<D: Dot, const ROWS: usize>(
        &mut self,
        dot: D,
        keys: Range<usize>,
        correction: &[f32; ROWS],
    ) {
        let (simd, lanes) = (dot.float(), <D::Float as Simd>::LANES);
        let layout = self.task.layout;
        // Of an odd number of keys, the last has a partner of value zero.
        let (first, pairs) = (keys.start / 2, keys.len().div_ceil(2));
        for (panel, column) in (0..layout.padded_dim()).step_by(layout.panel_cols).enumerate() {
            let start = (panel * layout.token_pairs() + first) * layout.panel_cols * 2;
            let values = &self.task.values[start..][..pairs * layout.panel_cols * 2];
            // SAFETY: the weights are ROWS rows KEY_BLOCK apart, `values` is `pairs` rows of two vectors of pairs.
            let sums = unsafe {
                dot.product_i16::<ROWS>(self.buffers.weights.as_ptr(), KEY_BLOCK, values.as_ptr(), pairs)
            };
            for (row, sum) in sums.into_iter().enumerate() {
                let slots = &mut self.buffers.sums[row * MAX_HEAD_DIM + column..][..layout.panel_cols];
                for (half, sum) in sum.into_iter().enumerate() {
                    let factor = simd.splat(correction[row]);
                    // SAFETY: `slots` is two vectors long.
                    unsafe {
                        let to = slots.as_mut_ptr().add(half * lanes);
                        simd.store(to, simd.mul_add(simd.load(to), factor, simd.to_f32(sum)));
                    }
                }
            }
        }
    }

    /// Writes the row's part of the output.
    #[inline(always)]
    fn write(&mut self, row: usize) {
        let shape = self.task.layout.shape;
        let start = (self.query + row) * shape.dim() + self.task.head * shape.head_dim;
        #[expect(unsafe_code, reason = "rows are shared out among tasks")]
        // SAFETY: this task alone writes these queries of this head.
        let out = unsafe { self.task.out.slice(start, shape.head_dim) };
        let sums = &self.buffers.sums[row * MAX_HEAD_DIM..][..shape.head_dim];
        let inverse = 1.0 / self.state.total[row];
        for ((out, sum), scale) in out.iter_mut().zip(sums).zip(self.task.value_scales) {
            *out = sum * (inverse * scale);
        }
    }
}

/// The largest magnitude in a slice, or `least` if that is larger.
#[inline(always)]
fn largest_magnitude<S: Simd>(simd: S, values: &[f32], least: f32) -> f32 {
    let mut largest = simd.splat(least);
    for at in (0..values.len()).step_by(S::LANES) {
        let x = load_padded(simd, values, at);
        largest = simd.max(simd.max(x, simd.sub(simd.splat(0.0), x)), largest);
    }
    simd.largest(largest)
}

/// The scale that maps the largest magnitude to `limit` units; 0 where the largest magnitude is negligible.
fn step(largest: f32, limit: f32) -> f32 {
    let step = largest / limit;
    if step >= f32::MIN_POSITIVE && step.is_finite() { step } else { 0.0 }
}

#[cfg(test)]
mod tests;
