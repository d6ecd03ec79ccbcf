//! Packing of int8 weights into panels.

use alloc::vec::Vec;
use core::ops::Range;

use crate::epilogue::channel_of;
use crate::simd::dot::{Dot, DotKernel, GROUP, PanelI8, ROW_ALIGN};
use crate::{AlignedBuffer, Isa};

/// Most inputs of a layer: `255 * 128 * k` must fit an i32, and offsets 16 bits.
const MAX_K: usize = 1 << 16;

/// With [`Dot::PAIRS_SATURATE`]: most that neighbouring weights of one sign may add up to. `255 * 128 <= 32767`.
const PAIR_LIMIT: i32 = 128;

/// A weight as it is stored in a model file.
#[derive(Clone, Copy, Debug)]
pub struct Int8Weight<'a> {
    /// `[n, k]`.
    pub values: &'a [i8],
    /// Per output channel, `[n]`.
    pub scale: &'a [f32],
    /// `[n]`.
    pub bias: &'a [f32],
    /// Inputs.
    pub k: usize,
}

/// An int8 linear layer in the layout of one instruction set.
pub struct PackedLinearI8 {
    pub(super) isa: &'static str,
    pub(super) gated: bool,
    pub(super) k: usize,
    /// Output channels, both halves of a gated layer included.
    n: usize,
    panel_cols: usize,
    /// `[all steps][panel_cols][GROUP]`.
    weights: AlignedBuffer<i8>,
    /// `[all steps]`.
    offsets: AlignedBuffer<u16>,
    /// Where each panel's steps start, and the end of the last: `[panels + 1]`.
    starts: Vec<u32>,
    /// `[panels][panel_cols]`.
    scale: AlignedBuffer<f32>,
    /// `[panels][panel_cols]`.
    bias: AlignedBuffer<f32>,
    /// Sum of a channel's weights, `[panels][panel_cols]`.
    sum: AlignedBuffer<i32>,
}

/// A panel's columns.
pub(super) struct Channels<'a> {
    pub(super) scale: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) sum: &'a [i32],
}

impl PackedLinearI8 {
    /// Packs a weight.
    ///
    /// # Panics
    /// When lengths disagree, a dimension is zero, or `k` is above 65536.
    pub fn pack(isa: Isa, weight: Int8Weight<'_>) -> Self {
        Self::pack_rows(isa, weight, false)
    }

    /// Packs the fused gate and value of a SwiGLU layer, `[2 * hidden, k]`, gate first: each panel holds one vector of
    /// gate channels and the vector of their values.
    ///
    /// # Panics
    /// As [`Self::pack`], and when the number of output channels is odd.
    pub fn pack_gated(isa: Isa, weight: Int8Weight<'_>) -> Self {
        assert!(weight.bias.len().is_multiple_of(2), "pack_gated: an even number of output channels");
        Self::pack_rows(isa, weight, true)
    }

    fn pack_rows(isa: Isa, weight: Int8Weight<'_>, gated: bool) -> Self {
        let Int8Weight { values, scale, bias, k } = weight;
        let n = bias.len();
        assert!(n > 0 && k > 0 && k <= MAX_K, "pack: n above zero, k in 1..={MAX_K}");
        assert_eq!((values.len(), scale.len()), (n * k, n), "pack: weight [n, k], scale [n]");
        let panel_cols = isa.panel_cols();
        let mut packed = Self {
            isa: isa.name(),
            gated,
            k,
            n,
            panel_cols,
            weights: AlignedBuffer::default(),
            offsets: AlignedBuffer::default(),
            starts: Vec::new(),
            scale: AlignedBuffer::default(),
            bias: AlignedBuffer::default(),
            sum: AlignedBuffer::default(),
        };
        let slots = packed.out_cols().div_ceil(packed.cols_per_panel()) * panel_cols;
        packed.scale.resize(slots);
        packed.bias.resize(slots);
        packed.sum.resize(slots);
        let split = isa.run_dot(PairsSaturate);
        // Twice over the same steps: how many there are, then what is in them.
        let mut steps = Steps { packed: &packed, values, split, column: Vec::new() };
        let mut starts = alloc::vec![0u32];
        for panel in 0..slots / panel_cols {
            let mut count = 0;
            steps.for_each(panel, |_, _| count += 1);
            starts.push(starts[panel] + count);
        }
        let total = starts[starts.len() - 1] as usize;
        let (mut weights, mut offsets) =
            (AlignedBuffer::zeroed(total * panel_cols * GROUP), AlignedBuffer::zeroed(total));
        for panel in 0..slots / panel_cols {
            let mut step = starts[panel] as usize;
            steps.for_each(panel, |offset, group| {
                offsets[step] = offset;
                weights[step * panel_cols * GROUP..][..panel_cols * GROUP].copy_from_slice(group);
                step += 1;
            });
        }
        (packed.weights, packed.offsets, packed.starts) = (weights, offsets, starts);
        for slot in 0..slots {
            let Some(channel) = channel_of(slot / panel_cols, slot % panel_cols, panel_cols, n, gated) else {
                continue;
            };
            packed.scale[slot] = scale[channel];
            packed.bias[slot] = bias[channel];
            packed.sum[slot] = values[channel * k..][..k].iter().map(|&w| i32::from(w)).sum();
        }
        packed
    }

    /// Columns of `out`.
    pub fn out_cols(&self) -> usize {
        if self.gated { self.n / 2 } else { self.n }
    }

    /// Columns of the input.
    pub fn in_cols(&self) -> usize {
        self.k
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
            + self.offsets.bytes()
            + self.scale.bytes()
            + self.bias.bytes()
            + self.sum.bytes()
    }

    /// Steps over all panels, relative to what they would be without splitting.
    pub fn step_ratio(&self) -> f64 {
        let needed = self.panels() * self.k.next_multiple_of(ROW_ALIGN) / GROUP;
        self.offsets.len() as f64 / needed as f64
    }

    pub(super) fn panels(&self) -> usize {
        self.starts.len() - 1
    }

    /// Bytes of an average panel.
    pub(super) fn panel_bytes(&self) -> usize {
        (self.weights.len() / self.panels()).max(1)
    }

    pub(super) fn panel(&self, panel: usize) -> PanelI8 {
        let steps = self.starts[panel] as usize..self.starts[panel + 1] as usize;
        let group = self.panel_cols * GROUP;
        PanelI8 {
            weights: self.weights[steps.start * group..steps.end * group].as_ptr(),
            offsets: self.offsets[steps.clone()].as_ptr(),
            steps: steps.len(),
        }
    }

    pub(super) fn channels(&self, panel: usize) -> Channels<'_> {
        let slots: Range<usize> = panel * self.panel_cols..(panel + 1) * self.panel_cols;
        Channels { scale: &self.scale[slots.clone()], bias: &self.bias[slots.clone()], sum: &self.sum[slots] }
    }

    fn cols_per_panel(&self) -> usize {
        if self.gated { self.panel_cols / 2 } else { self.panel_cols }
    }
}

/// Reads [`Dot::PAIRS_SATURATE`].
struct PairsSaturate;

impl DotKernel for PairsSaturate {
    type Output = bool;

    fn run<D: Dot>(self, _dot: D) -> bool {
        D::PAIRS_SATURATE
    }
}

/// The steps of a panel in order.
struct Steps<'a> {
    packed: &'a PackedLinearI8,
    values: &'a [i8],
    split: bool,
    /// `[panel_cols][GROUP]`, of the current group.
    column: Vec<i8>,
}

impl Steps<'_> {
    /// Calls `each(offset, weights: [panel_cols][GROUP])`.
    fn for_each(&mut self, panel: usize, mut each: impl FnMut(u16, &[i8])) {
        let PackedLinearI8 { k, n, panel_cols, gated, .. } = *self.packed;
        let mut excess = alloc::vec![0i8; panel_cols * GROUP];
        for offset in (0..k.next_multiple_of(ROW_ALIGN)).step_by(GROUP) {
            self.column.clear();
            self.column.resize(panel_cols * GROUP, 0);
            let width = GROUP.min(k.saturating_sub(offset));
            for (column, group) in self.column.chunks_exact_mut(GROUP).enumerate() {
                if let Some(channel) = channel_of(panel, column, panel_cols, n, gated)
                    && width > 0
                {
                    group[..width].copy_from_slice(&self.values[channel * k + offset..][..width]);
                }
            }
            excess.fill(0);
            let pairs = self.column.as_chunks_mut().0.iter_mut().zip(excess.as_chunks_mut().0);
            let saturates =
                self.split && pairs.fold(false, |any, (pair, excess)| any | take_excess(pair, excess));
            let offset = offset as u16;
            each(offset, &self.column);
            if saturates {
                each(offset, &excess);
            }
        }
    }
}

/// Moves what a pair of weights has above the limit into `excess`; returns whether there was any.
fn take_excess(pair: &mut [i8; 2], excess: &mut [i8; 2]) -> bool {
    let [first, second] = pair.map(i32::from);
    let over = first.abs() + second.abs() - PAIR_LIMIT;
    if over <= 0 || first.signum() != second.signum() {
        return false;
    }
    let larger = usize::from(second.abs() > first.abs());
    let moved = over * first.signum();
    excess[larger] = moved as i8;
    pair[larger] = (i32::from(pair[larger]) - moved) as i8;
    true
}
