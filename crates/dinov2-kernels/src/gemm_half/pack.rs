//! Packing of a linear layer for 16-bit floats: `weight: [n, k]` in f32 becomes panels of rounded factors,
//! `[panels][k / GROUP][panel_cols][GROUP]`, zero-padded in `n` and `k`.

use alloc::vec;

use crate::layer_shape::LayerShape;
use crate::simd::half::{Half, HalfKernel, K_ALIGN};
use crate::{AlignedBuffer, Isa};

/// A linear layer in the layout and the 16-bit format of one instruction set.
pub struct PackedLinearHalf {
    /// `[panels][ceil(k) / GROUP][panel_cols][GROUP]`, zero-padded.
    panels: AlignedBuffer<u16>,
    /// `[panels][panel_cols]`.
    bias: AlignedBuffer,
    pub(super) shape: LayerShape,
}

impl PackedLinearHalf {
    /// Rounds and packs `weight: [n, k]` with `bias: [n]`.
    ///
    /// # Panics
    /// When lengths disagree or `n` or `k` is zero.
    pub fn pack(isa: Isa, weight: &[f32], bias: &[f32], k: usize) -> Self {
        Self::pack_rows(isa, weight, bias, k, false)
    }

    /// As [`Self::pack`], for [`crate::Epilogue::SwiGlu`]: gates are the first half of the output channels, values the
    /// second.
    ///
    /// # Panics
    /// As [`Self::pack`], and when `n` is odd.
    pub fn pack_gated(isa: Isa, weight: &[f32], bias: &[f32], k: usize) -> Self {
        Self::pack_rows(isa, weight, bias, k, true)
    }

    fn pack_rows(isa: Isa, weight: &[f32], bias: &[f32], k: usize, gated: bool) -> Self {
        let shape = LayerShape::new(isa, bias.len(), k, gated);
        assert_eq!(weight.len(), bias.len() * k, "pack: weight [n, k]");
        let mut packed = Self { panels: AlignedBuffer::default(), bias: AlignedBuffer::default(), shape };
        packed.panels.resize(shape.panels() * packed.panel_len());
        packed.bias.resize(shape.panels() * shape.panel_cols);
        isa.run_half(Fill { packed: &mut packed, weight, bias });
        packed
    }

    /// Columns of `out`.
    pub fn out_cols(&self) -> usize {
        self.shape.out_cols()
    }

    /// Columns of `input`.
    pub fn in_cols(&self) -> usize {
        self.shape.k
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.panels.len() * size_of::<u16>() + self.bias.len() * size_of::<f32>()
    }

    /// Factors in a panel.
    pub(super) fn panel_len(&self) -> usize {
        self.shape.k.next_multiple_of(K_ALIGN) * self.shape.panel_cols
    }

    /// Weights and bias of a panel.
    pub(super) fn panel(&self, panel: usize) -> (&[u16], &[f32]) {
        let weights = &self.panels[panel * self.panel_len()..][..self.panel_len()];
        (weights, &self.bias[panel * self.shape.panel_cols..][..self.shape.panel_cols])
    }
}

/// Writes rounded weights to their places in zeroed panels.
struct Fill<'a> {
    packed: &'a mut PackedLinearHalf,
    /// `[n, k]`.
    weight: &'a [f32],
    /// `[n]`.
    bias: &'a [f32],
}

impl HalfKernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<H: Half>(self, half: H) {
        let Self { packed, weight, bias } = self;
        let (shape, len) = (packed.shape, packed.panel_len());
        let LayerShape { k, panel_cols: cols, .. } = shape;
        let mut row = vec![0; k];
        for panel in 0..shape.panels() {
            for column in 0..cols {
                let Some(channel) = shape.channel(panel, column) else { continue };
                packed.bias[panel * cols + column] = bias[channel];
                half.round(&weight[channel * k..][..k], &mut row);
                let groups = packed.panels[panel * len..][..len].chunks_exact_mut(cols * H::GROUP);
                for (group, from) in groups.zip(row.chunks(H::GROUP)) {
                    group[column * H::GROUP..][..from.len()].copy_from_slice(from);
                }
            }
        }
    }
}
