use alloc::vec;

use crate::epilogue::channel_of;
use crate::simd::half::{Half, HalfKernel, K_ALIGN};
use crate::{AlignedBuffer, Isa};

/// A linear layer in the layout and the 16-bit format of one instruction set.
pub struct PackedLinearHalf {
    /// Name of the instruction set.
    pub(super) isa: &'static str,
    /// `[panels][ceil(k) / GROUP][panel_cols][GROUP]`, zero-padded.
    panels: AlignedBuffer<u16>,
    /// `[panels][panel_cols]`.
    bias: AlignedBuffer,
    panel_cols: usize,
    n: usize,
    pub(super) k: usize,
    pub(super) gated: bool,
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
        assert!(bias.len().is_multiple_of(2), "pack_gated: an even number of output channels");
        Self::pack_rows(isa, weight, bias, k, true)
    }

    fn pack_rows(isa: Isa, weight: &[f32], bias: &[f32], k: usize, gated: bool) -> Self {
        let n = bias.len();
        assert!(n > 0 && k > 0, "pack: n and k above zero");
        assert_eq!(weight.len(), n * k, "pack: weight [n, k]");
        let mut packed = Self {
            isa: isa.name(),
            panels: AlignedBuffer::default(),
            bias: AlignedBuffer::default(),
            panel_cols: isa.panel_cols(),
            n,
            k,
            gated,
        };
        packed.panels.resize(packed.panel_count() * packed.panel_len());
        packed.bias.resize(packed.panel_count() * packed.panel_cols);
        isa.run_half(Fill { packed: &mut packed, weight, bias });
        packed
    }

    /// Columns of `out`.
    pub fn out_cols(&self) -> usize {
        if self.gated { self.n / 2 } else { self.n }
    }

    /// Columns of `input`.
    pub fn in_cols(&self) -> usize {
        self.k
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.panels.len() * size_of::<u16>() + self.bias.len() * size_of::<f32>()
    }

    pub(super) fn panel_count(&self) -> usize {
        let cols = if self.gated { self.panel_cols / 2 } else { self.panel_cols };
        self.out_cols().div_ceil(cols)
    }

    /// Factors in a panel.
    pub(super) fn panel_len(&self) -> usize {
        self.k.next_multiple_of(K_ALIGN) * self.panel_cols
    }

    /// Weights and bias of a panel.
    pub(super) fn panel(&self, panel: usize) -> (&[u16], &[f32]) {
        let weights = &self.panels[panel * self.panel_len()..][..self.panel_len()];
        (weights, &self.bias[panel * self.panel_cols..][..self.panel_cols])
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
        let (k, cols, len) = (packed.k, packed.panel_cols, packed.panel_len());
        let mut row = vec![0; k];
        for panel in 0..packed.panel_count() {
            for column in 0..cols {
                let Some(channel) = channel_of(panel, column, cols, packed.n, packed.gated) else { continue };
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
