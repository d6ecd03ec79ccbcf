//! Packing of int8 weights into panels.

use alloc::vec::Vec;
use core::ops::Range;

use dinov2_core::limits;

use crate::layer_shape::LayerShape;
use crate::simd::dot::{Dot, DotKernel, GROUP, PanelI8, ROW_ALIGN, STEP};
use crate::{AlignedBuffer, Isa};

/// Most inputs of a layer: `255 * 128 * k` must fit an i32, and offsets 16 bits.
const MAX_K: usize = 1 << 16;

// Then no model file leads to a layer that cannot be packed.
const _: () = assert!(limits::MAX_DIM <= MAX_K && limits::MAX_MLP_HIDDEN <= MAX_K);

/// With [`Dot::SUMS_SATURATE`]: most that weights of one sign that are summed in 16 bits may add up to.
/// `255 * 128 <= 32767`.
const SUM_LIMIT: i32 = 128;

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
    pub(super) shape: LayerShape,
    /// `[all steps][STEP / group][panel_cols][group]`, with [`Dot::PANEL_GROUP`].
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
        Self::pack_rows(isa, weight, true)
    }

    fn pack_rows(isa: Isa, weight: Int8Weight<'_>, gated: bool) -> Self {
        let Int8Weight { values, scale, bias, k } = weight;
        let shape = LayerShape::new(isa, bias.len(), k, gated);
        assert!(k <= MAX_K, "pack: k of at most {MAX_K}");
        let lengths = (values.len(), scale.len());
        assert_eq!(lengths, (bias.len() * k, bias.len()), "pack: weight [n, k], scale [n]");
        let panel_cols = shape.panel_cols;
        let (split, group) = isa.run_dot(Layout);
        // Twice over the same steps: how many there are, then what is in them.
        let mut steps = Steps { shape, values, split, group, rest: Vec::new(), step: Vec::new() };
        let mut starts = alloc::vec![0u32];
        for panel in 0..shape.panels() {
            let mut count = 0;
            steps.for_each(panel, |_, _| count += 1);
            starts.push(starts[panel] + count);
        }
        let total = starts[starts.len() - 1] as usize;
        let (mut weights, mut offsets) =
            (AlignedBuffer::zeroed(total * panel_cols * STEP), AlignedBuffer::zeroed(total));
        for (panel, &first) in starts[..starts.len() - 1].iter().enumerate() {
            let mut step = first as usize;
            steps.for_each(panel, |offset, step_weights| {
                offsets[step] = offset;
                weights[step * panel_cols * STEP..][..panel_cols * STEP].copy_from_slice(step_weights);
                step += 1;
            });
        }
        let slots = shape.panels() * panel_cols;
        let mut packed = Self {
            shape,
            weights,
            offsets,
            starts,
            scale: AlignedBuffer::zeroed(slots),
            bias: AlignedBuffer::zeroed(slots),
            sum: AlignedBuffer::zeroed(slots),
        };
        for slot in 0..slots {
            let Some(channel) = shape.channel(slot / panel_cols, slot % panel_cols) else { continue };
            packed.scale[slot] = scale[channel];
            packed.bias[slot] = bias[channel];
            packed.sum[slot] = values[channel * k..][..k].iter().map(|&w| i32::from(w)).sum();
        }
        packed
    }

    /// Columns of `out`.
    pub fn out_cols(&self) -> usize {
        self.shape.out_cols()
    }

    /// Columns of the input.
    pub fn in_cols(&self) -> usize {
        self.shape.k
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
        let needed = self.panels() * self.shape.k.next_multiple_of(ROW_ALIGN) / STEP;
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
        let step = self.shape.panel_cols * STEP;
        PanelI8 {
            weights: self.weights[steps.start * step..steps.end * step].as_ptr(),
            offsets: self.offsets[steps.clone()].as_ptr(),
            steps: steps.len(),
        }
    }

    pub(super) fn channels(&self, panel: usize) -> Channels<'_> {
        let slots: Range<usize> = panel * self.shape.panel_cols..(panel + 1) * self.shape.panel_cols;
        Channels { scale: &self.scale[slots.clone()], bias: &self.bias[slots.clone()], sum: &self.sum[slots] }
    }
}

/// Reads [`Dot::SUMS_SATURATE`] and [`Dot::PANEL_GROUP`].
struct Layout;

impl DotKernel for Layout {
    type Output = (bool, usize);

    fn run<D: Dot>(self, _dot: D) -> (bool, usize) {
        (D::SUMS_SATURATE, D::PANEL_GROUP)
    }
}

/// The steps of a panel in order.
struct Steps<'a> {
    shape: LayerShape,
    values: &'a [i8],
    split: bool,
    /// [`Dot::PANEL_GROUP`].
    group: usize,
    /// Weights of the current factors that no step holds yet, `[panel_cols][STEP]`.
    rest: Vec<i8>,
    /// `[STEP / group][panel_cols][group]`.
    step: Vec<i8>,
}

impl Steps<'_> {
    /// Calls `each(offset, weights: [STEP / group][panel_cols][group])`.
    fn for_each(&mut self, panel: usize, mut each: impl FnMut(u16, &[i8])) {
        let LayerShape { k, panel_cols, .. } = self.shape;
        self.step.resize(panel_cols * STEP, 0);
        for offset in (0..k.next_multiple_of(ROW_ALIGN)).step_by(STEP) {
            self.gather(panel, offset);
            loop {
                for (column, rest) in self.rest.as_chunks_mut::<STEP>().0.iter_mut().enumerate() {
                    let taken = if self.split { take_unsaturated(rest) } else { core::mem::take(rest) };
                    for (at, weights) in taken.chunks_exact(self.group).enumerate() {
                        let to = (at * panel_cols + column) * self.group;
                        self.step[to..][..self.group].copy_from_slice(weights);
                    }
                }
                each(offset as u16, &self.step);
                if self.rest.iter().all(|&weight| weight == 0) {
                    break;
                }
            }
        }
    }

    /// Copies the weights of the factors from `offset` into `rest`.
    fn gather(&mut self, panel: usize, offset: usize) {
        let LayerShape { k, panel_cols, .. } = self.shape;
        self.rest.clear();
        self.rest.resize(panel_cols * STEP, 0);
        let width = STEP.min(k.saturating_sub(offset));
        for (column, rest) in self.rest.chunks_exact_mut(STEP).enumerate().filter(|_| width > 0) {
            if let Some(channel) = self.shape.channel(panel, column) {
                rest[..width].copy_from_slice(&self.values[channel * k + offset..][..width]);
            }
        }
    }
}

/// Moves as much out of the weights of one column as may be summed in 16 bits.
fn take_unsaturated(rest: &mut [i8; STEP]) -> [i8; STEP] {
    let mut taken = [0; STEP];
    for pair in [0, 2] {
        let (mut positive, mut negative) = (SUM_LIMIT, SUM_LIMIT);
        for at in [pair, pair + 1, pair + GROUP, pair + GROUP + 1] {
            let weight = i32::from(rest[at]);
            let room = if weight > 0 { &mut positive } else { &mut negative };
            let part = weight.clamp(-*room, *room);
            *room -= part.abs();
            taken[at] = part as i8;
            rest[at] = (weight - part) as i8;
        }
    }
    taken
}
