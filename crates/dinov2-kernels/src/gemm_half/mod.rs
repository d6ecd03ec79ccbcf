//! Linear layers in 16-bit floats: `out = epilogue(input · weightᵀ + bias)`, input and weight rounded to bf16 or f16
//! ([`HalfFormat`], the instruction set's), summed in f32.
//!
//! The input comes as [`HalfRows`]; `weight: [n, k]` f32 is rounded as it is packed; `out: [rows, n]` f32
//! (`[rows, n / 2]` for SwiGLU). The packed weight is a run of panels `[k / GROUP][2 * LANES][GROUP]`, two vectors of
//! output channels each.
//!
//! ```
//! use dinov2_kernels::gemm_half::{HalfRows, PackedLinearHalf, round_rows};
//! use dinov2_kernels::{Epilogue, Isa, Pool};
//!
//! let (isa, pool) = (Isa::detect(), Pool::single());
//! let (weight, bias) = ([1.0, 0.0, 0.0, 0.0, 1.0, 1.0], [0.5, 0.0]); // [2, 3] and [2]
//! let layer = PackedLinearHalf::pack(isa, &weight, &bias, 3);
//! let mut input = HalfRows::default();
//! round_rows(isa, &pool, &[1.0, 2.0, 3.0], 3, &mut input);
//! let mut out = [0.0; 2];
//! layer.apply(isa, &pool, Epilogue::Store, &input, &mut out);
//! assert_eq!(out, [1.5, 5.0]); // small whole numbers are exact in bf16 and f16
//! ```

mod pack;
mod rows;
#[cfg(test)]
mod scalar;

use core::ops::Range;

use crate::blocking::Blocking;
use crate::disjoint::Disjoint;
use crate::epilogue::{Epilogue, Output};
use crate::simd::Simd;
use crate::simd::half::{Half, HalfKernel, HalfRowsKernel, for_half_rows};
use crate::{Isa, Pool};

pub use crate::simd::half::HalfFormat;
pub use pack::PackedLinearHalf;
pub use rows::{HalfRows, layer_norm_rounded, round_rows};

use rows::RowsView;

impl PackedLinearHalf {
    /// `out = epilogue(...)` for all rows of `input`. `out: [rows, out_cols]`.
    ///
    /// # Panics
    /// When lengths disagree, when the layer was packed for another instruction set, or when the epilogue does not
    /// fit the packing.
    pub fn apply(&self, isa: Isa, pool: &Pool, epilogue: Epilogue, input: &HalfRows, out: &mut [f32]) {
        let rows = input.rows();
        self.shape.check(isa, epilogue, (rows, input.cols()), out);
        let out = Disjoint::new(out);
        let out = Output { out: &out, cols: self.out_cols(), epilogue };
        let blocking = Blocking::new(
            rows,
            isa.half_tile_rows(),
            self.shape.panels(),
            self.panel_len() * size_of::<u16>(),
            pool.threads(),
        );
        pool.run(blocking.tasks(), &|task| {
            let (rows, panels) = blocking.block(task);
            isa.run_half(Block { layer: self, input: input.view(), out, rows, panels });
        });
    }
}

/// The work of one task.
struct Block<'a> {
    layer: &'a PackedLinearHalf,
    /// All rows.
    input: RowsView<'a>,
    out: Output<'a>,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl HalfKernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<H: Half>(self, half: H) {
        for row in self.rows.clone().step_by(H::TILE_ROWS) {
            let count = H::TILE_ROWS.min(self.rows.end - row);
            for panel in self.panels.clone() {
                for_half_rows(half, count, Tile { block: &self, panel, row });
            }
        }
    }
}

/// One tile of a [`Block`].
struct Tile<'a> {
    block: &'a Block<'a>,
    panel: usize,
    row: usize,
}

impl HalfRowsKernel for Tile<'_> {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
    fn run<H: Half, const ROWS: usize>(self, half: H) {
        let simd = half.float();
        let Self { block, panel, row } = self;
        let stride = block.input.stride;
        let factors = &block.input.factors(half)[row * stride..][..ROWS * stride];
        let (weights, bias) = block.layer.panel(panel);
        // SAFETY: `factors` is ROWS rows of `stride`, which is the panel's padded k; the packing made the panel for this
        // instruction set.
        let sums = unsafe { half.product::<ROWS>(factors.as_ptr(), stride, weights.as_ptr(), stride) };
        // SAFETY: the bias of a panel is two vectors long.
        let bias =
            unsafe { [simd.load(bias.as_ptr()), simd.load(bias.as_ptr().add(<H::Float as Simd>::LANES))] };
        for (index, sum) in sums.into_iter().enumerate() {
            let sum = [simd.add(sum[0], bias[0]), simd.add(sum[1], bias[1])];
            block.out.store_row(simd, row + index, panel, sum);
        }
    }
}

#[cfg(test)]
mod tests;
