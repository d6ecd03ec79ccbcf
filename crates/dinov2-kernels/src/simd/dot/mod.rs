//! Integer dot products of an instruction set ([`Dot`]): bytes for the int8 matrices, 16-bit pairs for attention.
//!
//! Unlike f32, instruction sets differ here in how many factors one instruction takes and in what it may overflow, so
//! each has its own micro-kernels against one contract, and the scalar definition of the operation that uses them.
//!
//! ```
//! use dinov2_kernels::Isa;
//! use dinov2_kernels::simd::dot::{Dot, DotKernel};
//!
//! struct TileRows;
//!
//! impl DotKernel for TileRows {
//!     type Output = usize;
//!
//!     #[inline(always)]
//!     fn run<D: Dot>(self, _dot: D) -> usize {
//!         D::TILE_ROWS
//!     }
//! }
//!
//! let isa = Isa::detect();
//! assert_eq!(isa.run_dot(TileRows), isa.dot_tile_rows());
//! ```

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_vnni;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dotprod;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx_vnni::AvxVnni;
#[cfg(target_arch = "x86_64")]
pub use avx512_vnni::Avx512Vnni;
#[cfg(target_arch = "aarch64")]
pub use neon_dotprod::NeonDotprod;
#[cfg(target_arch = "aarch64")]
pub use neon_i8mm::NeonI8mm;

use super::{MAX_TILE_ROWS, Simd};

/// Factors of a quantized row are stored in a multiple of this many bytes, so that kernels may read ahead.
pub const ROW_ALIGN: usize = 16;

/// Consecutive factors of one output channel that lie beside each other in most sets' panels.
pub const GROUP: usize = 4;

/// Factors of one step through a panel.
pub const STEP: usize = 2 * GROUP;

/// Integer vector of an instruction set with integer dot products.
pub type IntOf<D> = <<D as Dot>::Float as Simd>::I;

/// A tile of i32 sums: rows by two vectors of columns.
pub type Sums<D, const ROWS: usize> = [[IntOf<D>; 2]; ROWS];

/// A panel of an int8 matrix: two vectors of output channels for all of their factors.
#[derive(Clone, Copy)]
pub struct PanelI8 {
    /// `[steps][STEP / PANEL_GROUP][2 * LANES][PANEL_GROUP]`, with [`Dot::PANEL_GROUP`].
    pub weights: *const i8,
    /// `[steps]`: where in a row of the left operand a step's [`STEP`] factors start. Steps are in ascending order and
    /// cover the row up to [`ROW_ALIGN`]; with [`Dot::SUMS_SATURATE`] some are there several times, their weights split.
    /// Without, every step is there once, so that they are even in number.
    pub offsets: *const u16,
    /// Number of steps.
    pub steps: usize,
}

/// One instruction set's integer vectors, beside its float vectors. A value proves that the CPU has it.
#[expect(unsafe_code, reason = "micro-kernels work on raw pointers")]
pub trait Dot: Copy + Send + Sync + 'static {
    /// The float vectors that go with it.
    type Float: Simd;
    /// Rows of a micro-tile (two vectors wide); at most [`MAX_TILE_ROWS`].
    const TILE_ROWS: usize;
    /// Whether [`Self::product_i8`] sums products in 16 bits, which saturate: those of factors `2p`, `2p + 1`, `2p + 4`
    /// and `2p + 5` of a step. Then the positive and the negative weights among these of a column must each add up to
    /// at most 128 in magnitude, so that 255 times it stays within 16 bits.
    const SUMS_SATURATE: bool;
    /// Whether [`Self::product_i16`] is faster than f32.
    const FAST_I16: bool;
    /// Consecutive factors of one output channel that lie beside each other in a panel: [`GROUP`], or [`STEP`] where an
    /// instruction takes that many.
    const PANEL_GROUP: usize = GROUP;

    /// Runs a kernel with this instruction set enabled for the code generator.
    fn run<K: DotKernel>(self, kernel: K) -> K::Output;
    /// The float vectors' token.
    fn float(self) -> Self::Float;
    /// `sum` plus, lane by lane, the dot product of [`STEP`] bytes, wrapping in 32 bits: one step of
    /// [`Self::product_i8`] for one vector of sums. `left` holds stored factors, `right` weights, [`GROUP`] of each in a
    /// lane of each vector.
    fn dot_i8(self, sum: IntOf<Self>, left: [IntOf<Self>; 2], right: [IntOf<Self>; 2]) -> IntOf<Self>;
    /// `sum` plus, lane by lane, the dot product of a pair of i16, wrapping in 32 bits: one step of
    /// [`Self::product_i16`] for one vector of sums.
    fn dot_i16(self, sum: IntOf<Self>, left: IntOf<Self>, right: IntOf<Self>) -> IntOf<Self>;
    /// `start + left · panel`, wrapping in 32 bits. `left` is `ROWS` rows of stored factors, `left_stride` bytes apart.
    ///
    /// # Safety
    /// Rows are readable for the panel's offsets plus [`STEP`], rounded up to [`ROW_ALIGN`]; `panel` is as described.
    unsafe fn product_i8<const ROWS: usize>(
        self,
        left: *const u8,
        left_stride: usize,
        panel: PanelI8,
        start: Sums<Self, ROWS>,
    ) -> Sums<Self, ROWS>;
    /// `left · right`, wrapping in 32 bits. `left` is `ROWS` rows of `2 * pairs` i16, `left_stride` i16 apart;
    /// `right: [pairs][2 * LANES][2]`. No product pair may be `2 * (-32768)^2`.
    ///
    /// # Safety
    /// Both operands are readable.
    #[inline(always)]
    unsafe fn product_i16<const ROWS: usize>(
        self,
        left: *const i16,
        left_stride: usize,
        right: *const i16,
        pairs: usize,
    ) -> Sums<Self, ROWS> {
        let (simd, lanes) = (self.float(), <Self::Float as Simd>::LANES);
        let mut sums = [[simd.splat_i32(0); 2]; ROWS];
        for pair in 0..pairs {
            // SAFETY: `pair < pairs`, `row < ROWS`; the caller vouches for both operands.
            unsafe {
                let right = right.cast::<i32>().add(pair * 2 * lanes);
                let right = [simd.load_i32(right), simd.load_i32(right.add(lanes))];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let left = left.add(row * left_stride + 2 * pair).cast::<i32>().read_unaligned();
                    let left = simd.splat_i32(left);
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = self.dot_i16(*sum, left, right);
                    }
                }
            }
        }
        sums
    }
}

/// Code that is instantiated per instruction set with integer dot products. Implementations mark `run`
/// `#[inline(always)]`.
pub trait DotKernel {
    /// What it returns.
    type Output;
    /// The body, with the instruction set's token.
    fn run<D: Dot>(self, dot: D) -> Self::Output;
}

/// Code for a number of rows that is known when it is compiled, so that sums become registers.
pub(crate) trait DotRows {
    /// The body for `ROWS` rows.
    fn run<D: Dot, const ROWS: usize>(self, dot: D);
}

/// Calls the instance for `rows`, 1 to `D::TILE_ROWS`.
#[inline(always)]
pub(crate) fn for_dot_rows<D: Dot, R: DotRows>(dot: D, rows: usize, body: R) {
    const { assert!(D::TILE_ROWS <= MAX_TILE_ROWS) };
    // The comparison with TILE_ROWS is a constant: instances that never run are not compiled.
    macro_rules! instances {
        ($($rows:literal)*) => {
            match rows {
                $($rows if $rows <= D::TILE_ROWS => body.run::<D, $rows>(dot),)*
                _ => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    instances!(1 2 3 4 5 6 7 8 9 10 11 12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::isas_under_test;

    /// Lanes of most instruction sets at once; narrower ones use the first.
    const LANES: usize = crate::simd::MAX_LANES;

    /// Applies `dot_i8` and `dot_i16` to the first lanes.
    struct Steps {
        left: [[u8; GROUP * LANES]; 2],
        right: [[i8; GROUP * LANES]; 2],
    }

    impl DotKernel for Steps {
        type Output = (usize, i32, [[f32; LANES]; 2]);

        #[inline(always)]
        #[expect(unsafe_code, reason = "vector loads and stores")]
        fn run<D: Dot>(self, dot: D) -> Self::Output {
            let mut out = [[0.0; LANES]; 2];
            // SAFETY: each array is as long as the widest vector.
            unsafe {
                let simd = dot.float();
                let left = [
                    simd.load_i32(self.left[0].as_ptr().cast()),
                    simd.load_i32(self.left[1].as_ptr().cast()),
                ];
                let right = [
                    simd.load_i32(self.right[0].as_ptr().cast()),
                    simd.load_i32(self.right[1].as_ptr().cast()),
                ];
                let sums = [
                    dot.dot_i8(simd.splat_i32(-7), left, right),
                    dot.dot_i16(simd.splat_i32(-7), left[0], right[0]),
                ];
                for (out, sum) in out.iter_mut().zip(sums) {
                    simd.store(out.as_mut_ptr(), simd.to_f32(sum));
                }
            }
            (<D::Float as Simd>::LANES, <D::Float as Simd>::STORED_OFFSET, out)
        }
    }

    #[test]
    fn steps_are_dot_products_of_lanes() {
        // Small enough for sums in 16 bits, and for pairs of bytes as i16 to stay exact in f32.
        let left: [[u8; GROUP * LANES]; 2] = core::array::from_fn(|half| {
            core::array::from_fn(|at| if at % 2 == 1 { 0 } else { (251 * half + 83 * at) as u8 })
        });
        let right: [[i8; GROUP * LANES]; 2] =
            core::array::from_fn(|half| core::array::from_fn(|at| ((37 * at + 11 * half) % 127) as i8 - 63));
        for isa in isas_under_test() {
            let (lanes, offset, [bytes, pairs]) = isa.run_dot(Steps { left, right });
            // Sets with an offset take stored factors as signed bytes.
            let stored = |byte: u8| if offset == 0 { i32::from(byte) } else { i32::from(byte as i8) };
            for lane in 0..lanes {
                let group = lane * GROUP..(lane + 1) * GROUP;
                let products = (0..2).flat_map(|half| group.clone().map(move |at| (half, at)));
                let want: i32 =
                    products.map(|(half, at)| stored(left[half][at]) * i32::from(right[half][at])).sum();
                assert_eq!(bytes[lane], (want - 7) as f32, "{} bytes {lane}", isa.name());
                let word = |bytes: [u8; 2]| i32::from(i16::from_le_bytes(bytes));
                let want: i32 = group
                    .step_by(2)
                    .map(|at| {
                        let right = [right[0][at], right[0][at + 1]].map(|byte| byte as u8);
                        word([left[0][at], left[0][at + 1]]) * word(right)
                    })
                    .sum();
                assert_eq!(pairs[lane], (want - 7) as f32, "{} pairs {lane}", isa.name());
            }
        }
    }
}
