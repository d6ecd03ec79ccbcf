//! Quantizes and packs keys and values, a task per head.

use super::{KeyValuePanelsI16, Layout, MAX_HEAD_DIM, VALUE_LIMIT, largest_magnitude, step};
use crate::attention::AttentionShape;
use crate::disjoint::Disjoint;
use crate::simd::{Kernel, Simd, load_padded};
use crate::{Isa, Pool};

/// Quantizes and packs keys and values of all heads.
pub(super) fn pack(isa: Isa, pool: &Pool, layout: Layout, qkv: &[f32], scratch: &mut KeyValuePanelsI16) {
    let heads = layout.shape.heads;
    scratch.keys.resize(heads * layout.keys_len());
    scratch.values.resize(heads * layout.values_len());
    scratch.key_scales.resize(heads);
    scratch.value_scales.resize(heads * layout.padded_dim());
    let keys = Disjoint::new(&mut scratch.keys[..]);
    let values = Disjoint::new(&mut scratch.values[..]);
    let key_scales = Disjoint::new(&mut scratch.key_scales[..]);
    let value_scales = Disjoint::new(&mut scratch.value_scales[..]);
    // Separate tasks for keys and values of a head: with one task per head, threads would be idle where heads are few.
    pool.run(2 * heads, &|task| {
        let (head, part) = (task / 2, task % 2);
        #[expect(unsafe_code, reason = "heads are shared out among tasks")]
        // SAFETY: each task touches its own head's keys or values.
        unsafe {
            if part == 0 {
                let panels = keys.slice(head * layout.keys_len(), layout.keys_len());
                let scale = &mut key_scales.slice(head, 1)[0];
                isa.run(Keys { head: Head { layout, qkv, head }, panels, scale });
            } else {
                let panels = values.slice(head * layout.values_len(), layout.values_len());
                let scales = value_scales.slice(head * layout.padded_dim(), layout.padded_dim());
                isa.run(Values { head: Head { layout, qkv, head }, panels, scales });
            }
        }
    });
}

/// Where a head's rows are.
#[derive(Clone, Copy)]
struct Head<'a> {
    layout: Layout,
    qkv: &'a [f32],
    head: usize,
}

impl<'a> Head<'a> {
    /// `[head_dim]` of a token's queries (0), keys (1) or values (2).
    #[inline(always)]
    fn row(self, token: usize, part: usize) -> &'a [f32] {
        let shape = self.layout.shape;
        let dim = shape.dim();
        &self.qkv[token * 3 * dim + part * dim + self.head * shape.head_dim..][..shape.head_dim]
    }
}

struct Keys<'a> {
    head: Head<'a>,
    panels: &'a mut [i16],
    scale: &'a mut f32,
}

impl Kernel for Keys<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Layout { shape: AttentionShape { tokens, head_dim, .. }, panel_cols, limit } = self.head.layout;
        let mut largest = 0.0f32;
        for token in 0..tokens {
            largest = largest_magnitude(simd, self.head.row(token, 1), largest);
        }
        *self.scale = step(largest, limit);
        let inverse = if *self.scale == 0.0 { 0.0 } else { 1.0 / *self.scale };
        let mut row = Row([0; MAX_HEAD_DIM]);
        let panel_len = panel_cols * 2 * self.head.layout.channel_pairs();
        for (panel, first) in self.panels.chunks_exact_mut(panel_len).zip((0..tokens).step_by(panel_cols)) {
            if first + panel_cols > tokens {
                panel.fill(0);
            }
            for column in 0..panel_cols.min(tokens - first) {
                row.quantize(simd, self.head.row(first + column, 1), One(inverse));
                // An odd channel's partner is the zero that pads the row.
                let pairs = row.0[..head_dim.next_multiple_of(2)].as_chunks::<2>().0;
                for (pair, slots) in pairs.iter().zip(panel.chunks_exact_mut(2 * panel_cols)) {
                    slots[2 * column..][..2].copy_from_slice(pair);
                }
            }
        }
    }
}

/// The inverse of the scale. A trait and not a closure: a closure that is not inlined would run without the instruction
/// set.
trait Inverse {
    fn at<S: Simd>(&self, simd: S, at: usize) -> S::V;
}

/// The same for all channels.
struct One(f32);

impl Inverse for One {
    #[inline(always)]
    fn at<S: Simd>(&self, simd: S, _at: usize) -> S::V {
        simd.splat(self.0)
    }
}

/// One per channel.
struct PerChannel<'a>(&'a [f32]);

impl Inverse for PerChannel<'_> {
    #[inline(always)]
    fn at<S: Simd>(&self, simd: S, at: usize) -> S::V {
        load_padded(simd, self.0, at)
    }
}

/// A quantized row of keys or values, zero-padded.
#[repr(align(64))]
struct Row([i16; MAX_HEAD_DIM]);

impl Row {
    /// Rounds `values * inverse`.
    #[inline(always)]
    #[expect(unsafe_code, reason = "vector stores")]
    fn quantize<S: Simd>(&mut self, simd: S, values: &[f32], inverse: impl Inverse) {
        let lanes = S::LANES;
        for at in (0..values.len()).step_by(lanes) {
            let slots = &mut self.0[at..][..lanes];
            let x = simd.mul(load_padded(simd, values, at), inverse.at(simd, at));
            // SAFETY: `slots` is LANES long.
            unsafe { simd.store_i16(slots.as_mut_ptr(), x) };
        }
    }
}

struct Values<'a> {
    head: Head<'a>,
    panels: &'a mut [i16],
    /// `[padded_dim]`.
    scales: &'a mut [f32],
}

impl Kernel for Values<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let lanes = S::LANES;
        let layout = self.head.layout;
        let Layout { shape: AttentionShape { tokens, head_dim, .. }, panel_cols, .. } = layout;
        // `padded_dim` is a whole number of vectors.
        self.scales.fill(0.0);
        for token in 0..tokens {
            let row = self.head.row(token, 2);
            for at in (0..head_dim).step_by(lanes) {
                let slots = &mut self.scales[at..][..lanes];
                let x = load_padded(simd, row, at);
                #[expect(unsafe_code, reason = "vector loads and stores")]
                // SAFETY: `slots` is LANES long.
                unsafe {
                    let magnitude = simd.max(x, simd.sub(simd.splat(0.0), x));
                    simd.store(slots.as_mut_ptr(), simd.max(magnitude, simd.load(slots.as_ptr())));
                }
            }
        }
        let mut inverse = [0.0f32; MAX_HEAD_DIM];
        for (inverse, scale) in inverse.iter_mut().zip(self.scales) {
            *scale = step(*scale, VALUE_LIMIT as f32);
            *inverse = if *scale == 0.0 { 0.0 } else { 1.0 / *scale };
        }
        let panel_len = panel_cols * 2 * layout.token_pairs();
        let (mut first, mut second) = (Row([0; MAX_HEAD_DIM]), Row([0; MAX_HEAD_DIM]));
        for pair in 0..layout.token_pairs() {
            first.quantize(simd, self.head.row(2 * pair, 2), PerChannel(&inverse[..head_dim]));
            if 2 * pair + 1 < tokens {
                second.quantize(simd, self.head.row(2 * pair + 1, 2), PerChannel(&inverse[..head_dim]));
            } else {
                second.0.fill(0);
            }
            for (panel, column) in self.panels.chunks_exact_mut(panel_len).zip((0..).step_by(panel_cols)) {
                let slots = panel[pair * 2 * panel_cols..][..2 * panel_cols].as_chunks_mut::<2>().0;
                let columns = first.0[column..].iter().zip(&second.0[column..]);
                for (slots, (&first, &second)) in slots.iter_mut().zip(columns) {
                    *slots = [first, second];
                }
            }
        }
    }
}
