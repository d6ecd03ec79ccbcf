//! 16-bit floats of an instruction set ([`Half`]): the micro-kernel of [`crate::gemm_half`].
//!
//! Every set has one format. bf16 works everywhere: its numbers are the upper halves of f32, so [`Widened`] turns them
//! into f32 again and multiplies these, which saves memory but no time. Where the CPU multiplies 16-bit floats twice as
//! fast as f32, it is its own format: bf16 on AVX-512 BF16, f16 on ARM.
//!
//! ```
//! use dinov2_kernels::Isa;
//! use dinov2_kernels::simd::half::{Half, HalfKernel};
//!
//! /// One, rounded to the instruction set's format.
//! struct One;
//!
//! impl HalfKernel for One {
//!     type Output = u16;
//!
//!     #[inline(always)]
//!     fn run<H: Half>(self, half: H) -> u16 {
//!         let mut bits = [0];
//!         half.round(&[1.0], &mut bits);
//!         bits[0]
//!     }
//! }
//!
//! let isa = Isa::detect();
//! let bf16_or_f16 = [0x3f80, 0x3c00];
//! assert_eq!(isa.run_half(One), bf16_or_f16[isa.half_format() as usize]);
//! ```

#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "aarch64")]
mod neon_fp16;
mod widened;

#[cfg(target_arch = "x86_64")]
pub use avx512_bf16::Avx512Bf16;
pub use widened::Widened;

use super::{MAX_TILE_ROWS, Simd};
use crate::Number;

/// Factors of a row are stored in a multiple of this many, zeros at the end, so that kernels may take several at a time.
pub const K_ALIGN: usize = 8;

/// A 16-bit float format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfFormat {
    /// The upper half of an f32: its range, 8 bits of precision.
    Bf16,
    /// IEEE 754 binary16: up to 65504, 11 bits of precision.
    F16,
}

impl HalfFormat {
    /// `bf16` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

/// A tile of f32 sums: rows by two vectors of columns.
pub type Sums<H, const ROWS: usize> = [[<<H as Half>::Float as Simd>::V; 2]; ROWS];

/// One instruction set's 16-bit floats, beside its float vectors. A value proves that the CPU has it.
#[expect(unsafe_code, reason = "micro-kernels work on raw pointers")]
pub trait Half: Copy + Send + Sync + 'static {
    /// The float vectors that go with it.
    type Float: Simd;
    /// A factor of a row as it is stored: the 16 bits, or already an f32.
    type Factor: Number;
    /// The format.
    const FORMAT: HalfFormat;
    /// Whether [`Self::product`] is faster than f32.
    const FAST: bool;
    /// Rows of a micro-tile (two vectors wide); at most [`MAX_TILE_ROWS`].
    const TILE_ROWS: usize;
    /// Consecutive weights of one output channel that lie beside each other in a panel; divides [`K_ALIGN`].
    const GROUP: usize;

    /// Products that [`Self::step`] sums in a lane.
    const PRODUCTS: usize;

    /// Runs a kernel with this instruction set enabled for the code generator.
    fn run<K: HalfKernel>(self, kernel: K) -> K::Output;
    /// The float vectors' token.
    fn float(self) -> Self::Float;
    /// Rounds to nearest even; f16 saturates at its largest numbers.
    ///
    /// # Panics
    /// When lengths differ.
    fn round(self, from: &[f32], to: &mut [u16]);
    /// As [`Self::round`], for a row of factors.
    ///
    /// # Panics
    /// When lengths differ.
    fn round_factors(self, from: &[f32], to: &mut [Self::Factor]);
    /// `sum` plus the products of `left` and `right`: what [`Self::product`] consists of.
    fn step(
        self,
        sum: <Self::Float as Simd>::V,
        left: <Self::Float as Simd>::V,
        right: <Self::Float as Simd>::V,
    ) -> <Self::Float as Simd>::V;
    /// `left · right`. `left` is `ROWS` rows of `k` factors, `left_stride` apart; `right: [k / GROUP][2 * LANES][GROUP]`.
    /// `k` is a multiple of [`K_ALIGN`]. Products are summed in f32; f16 sums up to [`F16_SUMS`] of them in f16 before.
    ///
    /// # Safety
    /// Both operands are readable.
    unsafe fn product<const ROWS: usize>(
        self,
        left: *const Self::Factor,
        left_stride: usize,
        right: *const u16,
        k: usize,
    ) -> Sums<Self, ROWS>;
}

/// Products that are summed in f16 before they are added to a sum in f32: the rounding errors of so many stay below
/// those of bf16's factors, and widening costs little.
pub const F16_SUMS: usize = 64;

/// Code that is instantiated per instruction set with 16-bit floats. Implementations mark `run` `#[inline(always)]`.
pub trait HalfKernel {
    /// What it returns.
    type Output;
    /// The body, with the instruction set's token.
    fn run<H: Half>(self, half: H) -> Self::Output;
}

/// Code for a number of rows that is known when it is compiled, so that sums become registers.
pub(crate) trait HalfRowsKernel {
    /// The body for `ROWS` rows.
    fn run<H: Half, const ROWS: usize>(self, half: H);
}

/// Calls the instance for `rows`, 1 to `H::TILE_ROWS`.
#[inline(always)]
pub(crate) fn for_half_rows<H: Half, R: HalfRowsKernel>(half: H, rows: usize, body: R) {
    const { assert!(H::TILE_ROWS <= MAX_TILE_ROWS && K_ALIGN.is_multiple_of(H::GROUP)) };
    // The comparison with TILE_ROWS is a constant: instances that never run are not compiled.
    macro_rules! instances {
        ($($rows:literal)*) => {
            match rows {
                $($rows if $rows <= H::TILE_ROWS => body.run::<H, $rows>(half),)*
                _ => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    instances!(1 2 3 4 5 6 7 8 9 10 11 12)
}

/// Rounds to bf16, nearest even.
#[inline(always)]
pub(crate) fn round_bf16(from: &[f32], to: &mut [u16]) {
    assert_eq!(from.len(), to.len(), "round: lengths");
    from.iter().zip(to).for_each(|(&x, to)| *to = bf16_bits(x));
}

#[inline(always)]
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    // Adds half a unit of the upper half's last place, less one where that place is even. A NaN stays one.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if x.is_nan() { 0x7fc0 } else { (rounded >> 16) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::isas_under_test;
    use crate::test_util::numbers;
    use alloc::vec;
    use alloc::vec::Vec;

    struct Round<'a>(&'a [f32], &'a mut [u16]);

    impl HalfKernel for Round<'_> {
        type Output = ();

        #[inline(always)]
        fn run<H: Half>(self, half: H) {
            half.round(self.0, self.1);
        }
    }

    /// Against the crate `half`.
    #[test]
    fn every_isa_rounds_to_nearest_even() {
        let edges =
            [0.0, -0.0, 1.0, 65504.0, 65519.9, 1e-8, 6e-5, -2.0f32.powi(-24), 1.001_953_1, 1.005_859_4, 3e38];
        for isa in isas_under_test() {
            for len in 0..=35 {
                let noise = numbers(len as u64, len);
                let from: Vec<f32> = noise
                    .iter()
                    .enumerate()
                    .map(|(at, x)| if at % 3 == 0 { edges[at / 3 % edges.len()] } else { x * 9.0 })
                    .collect();
                let mut got = vec![0; len];
                isa.run_half(Round(&from, &mut got));
                let want: Vec<u16> = match isa.half_format() {
                    HalfFormat::Bf16 => from.iter().map(|&x| half::bf16::from_f32(x).to_bits()).collect(),
                    HalfFormat::F16 => from
                        .iter()
                        .map(|x| half::f16::from_f32(x.clamp(-65504.0, 65504.0)).to_bits())
                        .collect(),
                };
                assert_eq!(got, want, "{} {from:?}", isa.name());
            }
        }
    }
}
