//! Linear layers: `out = epilogue(input · weightᵀ + bias)` with the weight packed once.
//!
//! `input: [rows, k]`, `weight: [n, k]` as PyTorch stores it, `out: [rows, n]` (`[rows, n / 2]` for SwiGLU).
//!
//! The packed weight is a run of panels: `[panels][k][2 * LANES]`, each panel holding two vectors of output channels
//! for every `k`, zero-padded at the end. A tile is `TILE_ROWS` rows by one panel; its accumulators stay in registers
//! over the whole of `k`, and the epilogue is applied as they are stored. Tasks are blocks of tiles small enough that
//! a block's panels stay in the second-level cache.
//!
//! ```
//! use dinov2_kernels::gemm_f32::PackedLinear;
//! use dinov2_kernels::{Epilogue, Isa, Pool};
//!
//! let isa = Isa::detect();
//! let (weight, bias) = ([1.0, 0.0, 0.0, 0.0, 1.0, 1.0], [0.5, 0.0]); // [2, 3] and [2]
//! let layer = PackedLinear::pack(isa, &weight, &bias, 3);
//! let mut out = [0.0; 2];
//! layer.apply(isa, &Pool::single(), Epilogue::Store, &[1.0, 2.0, 3.0], &mut out);
//! assert_eq!(out, [1.5, 5.0]);
//! ```

pub(crate) mod scalar;
pub(crate) mod tile;

use crate::blocking::Blocking;
use crate::disjoint::Disjoint;
use crate::epilogue::{Epilogue, Output};
use crate::layer_shape::LayerShape;
use crate::simd::{Kernel, Simd};
use crate::{AlignedBuffer, Isa, Pool};
use tile::{Rows, for_rows};

/// A linear layer in the layout of one instruction set.
pub struct PackedLinear {
    /// `[panels][k][panel_cols]`.
    panels: AlignedBuffer,
    /// `[panels][panel_cols]`.
    bias: AlignedBuffer,
    shape: LayerShape,
}

impl PackedLinear {
    /// Packs `weight: [n, k]` and `bias: [n]`.
    ///
    /// # Panics
    /// When lengths disagree or a dimension is zero.
    pub fn pack(isa: Isa, weight: &[f32], bias: &[f32], k: usize) -> Self {
        Self::pack_rows(isa, weight, bias, k, false)
    }

    /// Packs the fused gate and value of a SwiGLU layer, `weight: [2 * hidden, k]`, gate first: each panel holds one
    /// vector of gate channels and the vector of their values.
    ///
    /// # Panics
    /// When lengths disagree, a dimension is zero or the number of output channels is odd.
    pub fn pack_gated(isa: Isa, weight: &[f32], bias: &[f32], k: usize) -> Self {
        Self::pack_rows(isa, weight, bias, k, true)
    }

    fn pack_rows(isa: Isa, weight: &[f32], bias: &[f32], k: usize, gated: bool) -> Self {
        let shape = LayerShape::new(isa, bias.len(), k, gated);
        assert_eq!(weight.len(), bias.len() * k, "pack: weight [n, k]");
        let panel_cols = shape.panel_cols;
        let mut packed = Self {
            panels: AlignedBuffer::zeroed(shape.panels() * k * panel_cols),
            bias: AlignedBuffer::zeroed(shape.panels() * panel_cols),
            shape,
        };
        for panel in 0..shape.panels() {
            let columns = &mut packed.panels[panel * k * panel_cols..][..k * panel_cols];
            for column in 0..panel_cols {
                let Some(channel) = shape.channel(panel, column) else { continue };
                packed.bias[panel * panel_cols + column] = bias[channel];
                let row = &weight[channel * k..][..k];
                for (slot, &value) in columns.iter_mut().skip(column).step_by(panel_cols).zip(row) {
                    *slot = value;
                }
            }
        }
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
        (self.panels.len() + self.bias.len()) * size_of::<f32>()
    }

    /// `out = epilogue(input · weightᵀ + bias)` for all rows. `input: [rows, k]`, `out: [rows, out_cols]`.
    ///
    /// # Panics
    /// When lengths disagree, when the layer was packed for another instruction set, or when the epilogue does not
    /// fit the packing.
    pub fn apply(&self, isa: Isa, pool: &Pool, epilogue: Epilogue, input: &[f32], out: &mut [f32]) {
        let LayerShape { k, panel_cols, .. } = self.shape;
        assert!(input.len().is_multiple_of(k), "apply: input [rows, {k}]");
        let rows = input.len() / k;
        self.shape.check(isa, epilogue, (rows, k), out);
        let out = Disjoint::new(out);
        let out = Output { out: &out, cols: self.out_cols(), epilogue };
        let blocking = Blocking::new(
            rows,
            isa.tile_rows(),
            self.shape.panels(),
            k * panel_cols * size_of::<f32>(),
            pool.threads(),
        );
        pool.run(blocking.tasks(), &|task| {
            let (rows, panels) = blocking.block(task);
            isa.run(Block { layer: self, input, out, rows, panels });
        });
    }
}

/// The work of one task.
struct Block<'a> {
    layer: &'a PackedLinear,
    /// `[rows, k]`, all rows.
    input: &'a [f32],
    out: Output<'a>,
    rows: core::ops::Range<usize>,
    panels: core::ops::Range<usize>,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut row = self.rows.start;
        while row < self.rows.end {
            let count = S::TILE_ROWS.min(self.rows.end - row);
            for panel in self.panels.clone() {
                for_rows(simd, count, LayerTile { block: &self, panel, row });
            }
            row += count;
        }
    }
}

/// One tile of a [`Block`].
struct LayerTile<'a> {
    block: &'a Block<'a>,
    panel: usize,
    row: usize,
}

impl Rows for LayerTile<'_> {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
    fn run<S: Simd, const ROWS: usize>(self, simd: S) {
        let (block, layer) = (self.block, self.block.layer);
        let LayerShape { k, panel_cols, .. } = layer.shape;
        let input = &block.input[self.row * k..][..ROWS * k];
        let weight = &layer.panels[self.panel * k * panel_cols..][..k * panel_cols];
        // SAFETY: `input` is ROWS rows of k, `weight` is k rows of a panel's two vectors.
        let sums = unsafe { tile::product::<S, ROWS>(simd, input.as_ptr(), k, weight.as_ptr(), k) };
        let bias = &layer.bias[self.panel * panel_cols..][..panel_cols];
        // SAFETY: `bias` is two vectors long.
        let bias = unsafe { [simd.load(bias.as_ptr()), simd.load(bias.as_ptr().add(S::LANES))] };
        for (index, sum) in sums.into_iter().enumerate() {
            let sum = [simd.add(sum[0], bias[0]), simd.add(sum[1], bias[1])];
            block.out.store_row(simd, self.row + index, self.panel, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::isas_under_test;
    use crate::test_util::{numbers, relative_l2};
    use alloc::vec::Vec;

    fn check(isas: &[Isa], pool: &Pool, epilogue: Epilogue, (rows, n, k): (usize, usize, usize)) {
        let (input, weight, bias) = (numbers(1, rows * k), numbers(2, n * k), numbers(3, n));
        let out_cols = if epilogue == Epilogue::SwiGlu { n / 2 } else { n };
        let before = numbers(4, rows * out_cols);
        let want: Vec<f32> = scalar::linear(epilogue, &input, &weight, &bias, k, &before);
        for &isa in isas {
            let layer = if epilogue == Epilogue::SwiGlu {
                PackedLinear::pack_gated(isa, &weight, &bias, k)
            } else {
                PackedLinear::pack(isa, &weight, &bias, k)
            };
            let mut got = before.clone();
            layer.apply(isa, pool, epilogue, &input, &mut got);
            let error = relative_l2(&got, &want);
            // The activation's own 5e-7, and rounding errors of k sums, which add up like a random walk.
            assert!(
                error < 1e-6 + 4e-8 * (k as f64).sqrt(),
                "{} {epilogue:?} rows {rows} n {n} k {k}: {error}",
                isa.name()
            );
        }
    }

    #[test]
    fn every_isa_follows_the_definition_at_awkward_sizes() {
        let pool = Pool::new(core::num::NonZeroUsize::new(2).unwrap());
        let epilogues = [Epilogue::Store, Epilogue::Gelu, Epilogue::Add, Epilogue::SwiGlu];
        let isas = isas_under_test();
        for isa in &isas {
            let (isa, cols) = (core::slice::from_ref(isa), isa.panel_cols());
            for rows in 1..=2 * isa[0].tile_rows() + 1 {
                for (n, k) in [(2, 1), (cols - 2, 3), (cols, 7), (cols + 2, 8), (2 * cols + 2, 33)] {
                    epilogues.iter().for_each(|&epilogue| check(isa, &pool, epilogue, (rows, n, k)));
                }
            }
        }
        // Those of a ViT-S; on an emulated CPU fewer rows and columns.
        let shapes = match cfg!(emulated) {
            false => [(257, 384, 588), (99, 1152, 384), (50, 384, 1536), (3, 62, 5000)],
            true => [(13, 96, 588), (9, 96, 384), (5, 96, 1536), (3, 62, 5000)],
        };
        for shape in shapes {
            epilogues.iter().for_each(|&epilogue| check(&isas, &pool, epilogue, shape));
        }
    }

    #[test]
    fn no_rows_is_no_work() {
        let layer = PackedLinear::pack(Isa::detect(), &[1.0, 2.0], &[0.0], 2);
        layer.apply(Isa::detect(), &Pool::single(), Epilogue::Store, &[], &mut []);
    }
}
