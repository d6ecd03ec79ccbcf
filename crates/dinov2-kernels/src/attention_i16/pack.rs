//! Quantises and packs keys and values, a task per head.

use super::{KeyValuePanelsI16, Layout, VALUE_LIMIT, query_key_limit, step};
use crate::attention::AttentionShape;
use crate::disjoint::Disjoint;
use crate::simd::dot::{Dot, DotKernel};
use crate::{Isa, Pool};

/// Quantises and packs keys and values of all heads.
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
    // Keys and values of a head are tasks of their own: with few heads, threads would stand idle.
    pool.run(2 * heads, &|task| {
        let (head, part) = (task / 2, task % 2);
        #[expect(unsafe_code, reason = "heads are shared out among tasks")]
        // SAFETY: each task touches its own head's keys or values.
        unsafe {
            if part == 0 {
                let panels = keys.slice(head * layout.keys_len(), layout.keys_len());
                let scale = &mut key_scales.slice(head, 1)[0];
                isa.run_dot(Keys { head: Head { layout, qkv, head }, panels, scale });
            } else {
                let panels = values.slice(head * layout.values_len(), layout.values_len());
                let scales = value_scales.slice(head * layout.padded_dim(), layout.padded_dim());
                isa.run_dot(Values { head: Head { layout, qkv, head }, panels, scales });
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

impl DotKernel for Keys<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, _dot: D) {
        let Layout { shape: AttentionShape { tokens, head_dim, .. }, panel_cols } = self.head.layout;
        let mut largest = 0.0f32;
        for token in 0..tokens {
            largest = self.head.row(token, 1).iter().fold(largest, |most, x| most.max(x.abs()));
        }
        *self.scale = step(largest, query_key_limit(head_dim));
        let inverse = if *self.scale == 0.0 { 0.0 } else { 1.0 / *self.scale };
        let panel_len = panel_cols * 2 * self.head.layout.channel_pairs();
        for (panel, first) in self.panels.chunks_exact_mut(panel_len).zip((0..tokens).step_by(panel_cols)) {
            if first + panel_cols > tokens || head_dim % 2 == 1 {
                panel.fill(0);
            }
            for column in 0..panel_cols.min(tokens - first) {
                let row = self.head.row(first + column, 1);
                for (pair, slots) in row.chunks(2).zip(panel.chunks_exact_mut(2 * panel_cols)) {
                    for (slot, x) in slots[2 * column..][..2].iter_mut().zip(pair) {
                        *slot = round(x * inverse);
                    }
                }
            }
        }
    }
}

struct Values<'a> {
    head: Head<'a>,
    panels: &'a mut [i16],
    /// `[padded_dim]`.
    scales: &'a mut [f32],
}

impl DotKernel for Values<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, _dot: D) {
        let Layout { shape: AttentionShape { tokens, head_dim, .. }, panel_cols } = self.head.layout;
        self.scales.fill(0.0);
        for token in 0..tokens {
            for (largest, x) in self.scales.iter_mut().zip(self.head.row(token, 2)) {
                *largest = largest.max(x.abs());
            }
        }
        self.scales.iter_mut().for_each(|scale| *scale = step(*scale, VALUE_LIMIT));
        let panel_len = panel_cols * 2 * self.head.layout.token_pairs();
        for (panel, column) in self.panels.chunks_exact_mut(panel_len).zip((0..head_dim).step_by(panel_cols))
        {
            let width = panel_cols.min(head_dim - column);
            if width < panel_cols || tokens % 2 == 1 {
                panel.fill(0);
            }
            let mut inverse = [0.0f32; 2 * crate::simd::MAX_LANES];
            for (inverse, scale) in inverse.iter_mut().zip(&self.scales[column..][..width]) {
                *inverse = if *scale == 0.0 { 0.0 } else { 1.0 / scale };
            }
            for token in 0..tokens {
                let row = &self.head.row(token, 2)[column..][..width];
                let slots = &mut panel[token / 2 * 2 * panel_cols..][..2 * panel_cols];
                for ((slot, x), inverse) in slots[token % 2..].iter_mut().step_by(2).zip(row).zip(&inverse) {
                    *slot = round(x * inverse);
                }
            }
        }
    }
}

/// To nearest, ties to even; magnitudes are within the limits by the choice of the scale.
#[inline(always)]
fn round(x: f32) -> i16 {
    // 1.5 * 2^23: adding it leaves no fraction bits.
    const SHIFT: f32 = 12_582_912.0;
    ((x + SHIFT) - SHIFT) as i16
}
