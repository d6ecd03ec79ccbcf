//! The output of an engine for one frame: final tokens `[n, dim]` and taps.

use alloc::vec::Vec;

use crate::{PatchGrid, Tap, Taps, VitSpec};

/// Features of one frame. Reuse it from frame to frame: buffers grow on the first frame of a grid and are kept.
#[derive(Clone, Debug)]
pub struct Features {
    grid: PatchGrid,
    dim: usize,
    registers: usize,
    tokens: Vec<f32>,
    taps: Vec<(Tap, Vec<f32>)>,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            grid: PatchGrid { rows: 0, cols: 0 },
            dim: 0,
            registers: 0,
            tokens: Vec::new(),
            taps: Vec::new(),
        }
    }
}

impl Features {
    /// Empty features; [`crate::Extractor::extract`] sizes the buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sizes all buffers for this model, grid and taps; allocates only if a buffer must grow. Called by engines.
    pub fn prepare(&mut self, spec: &VitSpec, grid: PatchGrid, taps: &Taps) {
        let tokens = spec.tokens(grid);
        self.grid = grid;
        self.dim = spec.dim;
        self.registers = spec.registers;
        self.tokens.resize(tokens * spec.dim, 0.0);
        if !self.taps.iter().map(|(tap, _)| *tap).eq(taps.iter()) {
            self.taps = taps.iter().map(|tap| (tap, Vec::new())).collect();
        }
        for (tap, values) in &mut self.taps {
            values.resize(tap.len(spec, tokens), 0.0);
        }
    }

    /// Grid of the patches.
    pub fn grid(&self) -> PatchGrid {
        self.grid
    }

    /// Width of a token.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Final normed tokens, `[n, dim]`: CLS, then registers, then patches row by row.
    pub fn tokens(&self) -> &[f32] {
        &self.tokens
    }

    /// Mutable [`Self::tokens`], for engines.
    pub fn tokens_mut(&mut self) -> &mut [f32] {
        &mut self.tokens
    }

    /// The CLS token, `[dim]`; empty before the first frame.
    pub fn cls(&self) -> &[f32] {
        &self.tokens[..self.dim.min(self.tokens.len())]
    }

    /// The register tokens, `[registers, dim]`.
    pub fn registers(&self) -> &[f32] {
        if self.tokens.is_empty() { &[] } else { &self.tokens[self.dim..(1 + self.registers) * self.dim] }
    }

    /// The patch tokens, `[rows, cols, dim]`.
    pub fn patches(&self) -> &[f32] {
        if self.tokens.is_empty() { &[] } else { &self.tokens[(1 + self.registers) * self.dim..] }
    }

    /// The feature of one patch, `[dim]`. Row and column count from 0 at the top left; [`crate::PatchGeometry`] computes them for a
    /// pixel.
    ///
    /// # Panics
    /// If row or column is outside the grid.
    pub fn patch(&self, row: usize, col: usize) -> &[f32] {
        let PatchGrid { rows, cols } = self.grid;
        assert!(
            row < rows && col < cols,
            "patch: expected within {rows}x{cols}, got row {row}, column {col}"
        );
        &self.patches()[(row * cols + col) * self.dim..][..self.dim]
    }

    /// The values of one tap, in the shape that [`Tap`] states; `None` if it was not requested.
    pub fn tap(&self, wanted: Tap) -> Option<&[f32]> {
        self.taps.iter().find(|(tap, _)| *tap == wanted).map(|(_, values)| values.as_slice())
    }

    /// Mutable [`Self::tap`], for engines.
    pub fn tap_mut(&mut self, wanted: Tap) -> Option<&mut [f32]> {
        self.taps.iter_mut().find(|(tap, _)| *tap == wanted).map(|(_, values)| values.as_mut_slice())
    }

    /// All requested taps with their values, in the order of the request.
    pub fn taps(&self) -> impl Iterator<Item = (Tap, &[f32])> {
        self.taps.iter().map(|(tap, values)| (*tap, values.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::Facet;

    #[test]
    fn buffers_have_the_stated_shapes() {
        let spec = VitSpec { registers: 4, ..crate::spec::tests::vits14() };
        let facet = Tap::Facet { layer: 3, facet: Facet::Key };
        let mut features = Features::new();
        assert!(
            features.cls().is_empty() && features.registers().is_empty() && features.patches().is_empty()
        );
        features.prepare(&spec, PatchGrid { rows: 2, cols: 3 }, &Taps::new([facet, Tap::ClsAttention]));
        assert_eq!(features.tokens().len(), 11 * 384);
        assert_eq!((features.cls().len(), features.registers().len()), (384, 4 * 384));
        assert_eq!(features.patches().len(), 6 * 384);
        assert_eq!(features.tap(facet).map(<[f32]>::len), Some(11 * 384));
        assert_eq!(features.tap(Tap::ClsAttention).map(<[f32]>::len), Some(11 * 6));
        assert!(features.tap(Tap::Layer { layer: 3, norm: false }).is_none());
    }

    #[test]
    fn a_patch_is_its_part_of_the_patches() {
        let spec = VitSpec { registers: 4, ..crate::spec::tests::vits14() };
        let mut features = Features::new();
        features.prepare(&spec, PatchGrid { rows: 2, cols: 3 }, &Taps::none());
        features.tokens_mut().iter_mut().enumerate().for_each(|(at, value)| *value = (at / 384) as f32);
        // Behind CLS and four registers.
        assert!(features.patch(0, 0).iter().all(|value| *value == 5.0) && features.patch(0, 0).len() == 384);
        assert!(features.patch(1, 2).iter().all(|value| *value == 10.0));
        assert!(std::panic::catch_unwind(|| features.patch(0, 3)[0]).is_err());
        assert!(std::panic::catch_unwind(|| Features::new().patch(0, 0).len()).is_err());
    }
}
