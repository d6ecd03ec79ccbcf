//! What the packed linear layers of all precisions have in common: their sizes, and where output channels lie in panels.

use crate::{Epilogue, Isa};

/// Sizes of a packed layer. A panel is two vectors of output channels; of a gated layer (SwiGLU), one vector of gates and
/// the vector of their values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerShape {
    /// Name of the instruction set that it is packed for.
    isa: &'static str,
    /// Output channels, both halves of a gated layer included.
    n: usize,
    /// Inputs.
    pub(crate) k: usize,
    /// Output channels of a panel.
    pub(crate) panel_cols: usize,
    gated: bool,
}

impl LayerShape {
    /// # Panics
    /// When `n` or `k` is zero, or `n` odd for a gated layer.
    pub(crate) fn new(isa: Isa, n: usize, k: usize, gated: bool) -> Self {
        assert!(n > 0 && k > 0, "pack: n and k above zero");
        assert!(!gated || n.is_multiple_of(2), "pack_gated: an even number of output channels");
        Self { isa: isa.name(), n, k, panel_cols: isa.panel_cols(), gated }
    }

    /// Columns of the layer's output.
    pub(crate) fn out_cols(self) -> usize {
        if self.gated { self.n / 2 } else { self.n }
    }

    /// Panels, the last of them padded.
    pub(crate) fn panels(self) -> usize {
        let cols = if self.gated { self.panel_cols / 2 } else { self.panel_cols };
        self.out_cols().div_ceil(cols)
    }

    /// The output channel in a column of a panel, `None` in the padding.
    pub(crate) fn channel(self, panel: usize, column: usize) -> Option<usize> {
        let Self { n, panel_cols, gated, .. } = self;
        if !gated {
            return Some(panel * panel_cols + column).filter(|&channel| channel < n);
        }
        let lanes = panel_cols / 2;
        let within_half = Some(panel * lanes + column % lanes).filter(|&channel| channel < n / 2)?;
        Some(within_half + column / lanes * (n / 2))
    }

    /// Checks what a layer is applied to.
    ///
    /// # Panics
    /// When it was packed for another instruction set, the epilogue does not fit the packing, or lengths disagree.
    pub(crate) fn check(self, isa: Isa, epilogue: Epilogue, (rows, in_cols): (usize, usize), out: &[f32]) {
        assert_eq!(self.isa, isa.name(), "apply: packed for this instruction set");
        assert_eq!(self.gated, epilogue == Epilogue::SwiGlu, "apply: SwiGLU with a gated packing");
        assert_eq!(in_cols, self.k, "apply: input [rows, k]");
        assert_eq!(out.len(), rows * self.out_cols(), "apply: out [rows, out_cols]");
    }
}
