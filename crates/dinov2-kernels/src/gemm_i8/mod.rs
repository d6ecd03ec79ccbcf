//! Linear layers in 8 bits: `out = epilogue(scale_row * scale_channel * Σ (q - zero) * w + bias)`.
//!
//! The input comes quantized per row ([`crate::quantize`]), the weight per output channel: `weight: [n, k]` int8,
//! `out: [rows, n]` f32 (`[rows, n / 2]` for SwiGLU). The sum is exact, so every instruction set yields the same
//! integer; only the f32 epilogue differs in its last bits.
//!
//! The packed weight is a run of panels `[steps][2][2 * LANES][4]`: two vectors of output channels, four consecutive
//! weights of each beside each other, as the dot-product instructions take them (eight for `smmla`). `-zero * Σ w` is where the sums
//! start. Where an instruction set sums products in 16 bits ([`Dot::SUMS_SATURATE`]), weights that could saturate are
//! split into several steps over the same inputs: exact for every weight, and nearly free for weights that were
//! quantized to 7 bits with this in mind.
//!
//! ```
//! use dinov2_kernels::gemm_i8::{Int8Weight, PackedLinearI8};
//! use dinov2_kernels::quantize::{QuantizedRows, quantize_rows};
//! use dinov2_kernels::{Epilogue, Isa, Pool};
//!
//! let (isa, pool) = (Isa::detect(), Pool::single());
//! let weight = Int8Weight { values: &[2, 0, 0, 0, 2, 2], scale: &[0.5, 0.5], bias: &[0.5, 0.0], k: 3 };
//! let layer = PackedLinearI8::pack(isa, weight);
//! let mut input = QuantizedRows::default();
//! quantize_rows(isa, &pool, &[1.0, 2.0, 3.0], 3, &mut input);
//! let mut out = [0.0; 2];
//! layer.apply(isa, &pool, Epilogue::Store, &input, &mut out);
//! assert!((out[0] - 1.5).abs() < 0.02 && (out[1] - 5.0).abs() < 0.02);
//! ```

mod pack;
#[cfg(test)]
mod scalar;

use core::ops::Range;

use crate::blocking::Blocking;
use crate::disjoint::Disjoint;
use crate::epilogue::{Epilogue, Output};
use crate::quantize::{QuantizedRows, RowsView};
use crate::simd::Simd;
use crate::simd::dot::{Dot, DotKernel, DotRows, for_dot_rows};
use crate::{Isa, Pool};

pub use pack::{Int8Weight, PackedLinearI8};

impl PackedLinearI8 {
    /// `out = epilogue(...)` for all rows of `input`. `out: [rows, out_cols]`.
    ///
    /// # Panics
    /// When lengths disagree, when the layer was packed for another instruction set, or when the epilogue does not
    /// fit the packing.
    pub fn apply(&self, isa: Isa, pool: &Pool, epilogue: Epilogue, input: &QuantizedRows, out: &mut [f32]) {
        let rows = input.rows();
        self.shape.check(isa, epilogue, (rows, input.cols()), out);
        let out = Disjoint::new(out);
        let out = Output { out: &out, cols: self.out_cols(), epilogue };
        let blocking =
            Blocking::new(rows, isa.dot_tile_rows(), self.panels(), self.panel_bytes(), pool.threads());
        pool.run(blocking.tasks(), &|task| {
            let (rows, panels) = blocking.block(task);
            isa.run_dot(Block { layer: self, input: input.view(), out, rows, panels });
        });
    }
}

/// The work of one task.
struct Block<'a> {
    layer: &'a PackedLinearI8,
    /// All rows.
    input: RowsView<'a>,
    out: Output<'a>,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl DotKernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, dot: D) {
        for row in self.rows.clone().step_by(D::TILE_ROWS) {
            let count = D::TILE_ROWS.min(self.rows.end - row);
            for panel in self.panels.clone() {
                for_dot_rows(dot, count, Tile { block: &self, panel, row });
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

impl DotRows for Tile<'_> {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
    fn run<D: Dot, const ROWS: usize>(self, dot: D) {
        let (simd, lanes) = (dot.float(), <D::Float as Simd>::LANES);
        let Self { block, panel, row } = self;
        let RowsView { factors, stride, scales, zeros } = block.input;
        let factors = &factors[row * stride..][..ROWS * stride];
        let channels = block.layer.channels(panel);
        let (scales, zeros) = (&scales[row..][..ROWS], &zeros[row..][..ROWS]);
        // SAFETY: `sums` of a panel is two vectors long.
        let channel_sums = unsafe {
            [simd.load_i32(channels.sum.as_ptr()), simd.load_i32(channels.sum.as_ptr().add(lanes))]
        };
        let start = core::array::from_fn(|row| {
            let shift = simd.splat_i32(<D::Float as Simd>::STORED_OFFSET - zeros[row]);
            [simd.mul_i32(shift, channel_sums[0]), simd.mul_i32(shift, channel_sums[1])]
        });
        // SAFETY: `factors` is ROWS rows of `stride` bytes; the packing made the panel for this instruction set with
        // offsets below its k, and rows are padded to what kernels may read.
        let sums =
            unsafe { dot.product_i8::<ROWS>(factors.as_ptr(), stride, block.layer.panel(panel), start) };
        // SAFETY: scale and bias of a panel are two vectors long.
        let (scale, bias) = unsafe {
            let pair = |from: &[f32]| [simd.load(from.as_ptr()), simd.load(from.as_ptr().add(lanes))];
            (pair(channels.scale), pair(channels.bias))
        };
        for (index, sum) in sums.into_iter().enumerate() {
            let row_scale = simd.splat(scales[index]);
            let value = |half: usize, sum| {
                simd.mul_add(simd.mul(simd.to_f32(sum), row_scale), scale[half], bias[half])
            };
            block.out.store_row(simd, row + index, panel, [value(0, sum[0]), value(1, sum[1])]);
        }
    }
}

#[cfg(test)]
mod tests;
