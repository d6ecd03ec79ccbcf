//! 16-bit floats of NEON with arithmetic on f16: up to [`F16_SUMS`] products are summed in f16, these sums in f32.

use core::arch::aarch64::*;
use core::arch::asm;

use super::{F16_SUMS, Half, HalfFormat, HalfKernel, K_ALIGN, Sums};
use crate::simd::{Neon, NeonDotprod, NeonI8mm, Simd};

/// Rows of a tile: as many sums in f16, and as many rows' eight factors in the sixteen registers that multiplication by
/// a lane can take them from.
const TILE_ROWS: usize = 12;

/// `fmla` on eight f16. The tokens of `sdot` and `smmla` prove it too.
macro_rules! half_by_fmla {
    ($($token:ty),*) => { $(
        #[expect(unsafe_code, reason = "vector instructions")]
        impl Half for $token {
            type Float = Neon;
            type Factor = u16;
            const FORMAT: HalfFormat = HalfFormat::F16;
            const FAST: bool = true;
            const TILE_ROWS: usize = TILE_ROWS;
            const GROUP: usize = 1;
            const PRODUCTS: usize = 2;

            #[inline(always)]
            fn run<K: HalfKernel>(self, kernel: K) -> K::Output {
                #[target_feature(enable = "neon,fp16")]
                fn run_enabled<K: HalfKernel>(half: $token, kernel: K) -> K::Output {
                    kernel.run(half)
                }
                // SAFETY: `self` proves the CPU feature.
                unsafe { run_enabled(self, kernel) }
            }
            #[inline(always)]
            fn float(self) -> Neon {
                crate::simd::dot::Dot::float(self)
            }
            #[inline(always)]
            fn round(self, from: &[f32], to: &mut [u16]) {
                round_f16(Half::float(self), from, to);
            }
            #[inline(always)]
            fn round_factors(self, from: &[f32], to: &mut [u16]) {
                self.round(from, to);
            }
            #[inline(always)]
            fn step(self, sum: float32x4_t, left: float32x4_t, right: float32x4_t) -> float32x4_t {
                let mut sum = sum;
                // SAFETY: `self` proves the CPU feature.
                unsafe {
                    asm!(
                        "fmla {sum:v}.8h, {left:v}.8h, {right:v}.8h",
                        sum = inout(vreg) sum,
                        left = in(vreg) left,
                        right = in(vreg) right,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
                sum
            }
            #[inline(always)]
            unsafe fn product<const ROWS: usize>(
                self,
                left: *const u16,
                left_stride: usize,
                right: *const u16,
                k: usize,
            ) -> Sums<Self, ROWS> {
                // SAFETY: `self` proves the CPU feature; the caller vouches for the operands.
                unsafe { product(left, left_stride, right, k) }
            }
        }
    )* };
}
half_by_fmla!(NeonDotprod, NeonI8mm);

/// Rounds to f16, nearest even, saturating.
#[inline(always)]
fn round_f16(simd: Neon, from: &[f32], to: &mut [u16]) {
    assert_eq!(from.len(), to.len(), "round: lengths");
    const LANES: usize = <Neon as Simd>::LANES;
    for (from, to) in from.chunks(LANES).zip(to.chunks_mut(LANES)) {
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        let mut halves = [0u16; LANES];
        #[expect(unsafe_code, reason = "vector instructions")]
        // SAFETY: `simd` proves NEON, which has the conversion; both arrays are a vector long.
        unsafe {
            let x = simd.max(simd.min(simd.load(lanes.as_ptr()), simd.splat(65504.0)), simd.splat(-65504.0));
            let half: uint16x4_t;
            asm!(
                "fcvtn {half:v}.4h, {x:v}.4s",
                half = out(vreg) half,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
            vst1_u16(halves.as_mut_ptr(), half);
        }
        to.copy_from_slice(&halves[..from.len()]);
    }
}

/// [`Half::product`]. By `asm!`, one instruction per block, so that the compiler chooses the registers for every number
/// of rows.
///
/// # Safety
/// As [`Half::product`].
#[target_feature(enable = "neon,fp16")]
#[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
unsafe fn product<const ROWS: usize>(
    left: *const u16,
    left_stride: usize,
    right: *const u16,
    k: usize,
) -> [[float32x4_t; 2]; ROWS] {
    macro_rules! fmla {
        ($weights:expr, $factors:expr, $sums:expr, $($lane:literal)*) => { $(
            for (sum, factors) in $sums.iter_mut().zip($factors) {
                asm!(
                    concat!("fmla {sum:v}.8h, {weights:v}.8h, {factors:v}.h[", $lane, "]"),
                    sum = inout(vreg) *sum,
                    weights = in(vreg) vld1q_u16($weights.add(8 * $lane)),
                    factors = in(vreg_low16) factors,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        )* };
    }
    let mut sums = [[vdupq_n_f32(0.0); 2]; ROWS];
    for first in (0..k).step_by(F16_SUMS) {
        let mut half_sums = [vdupq_n_u16(0); ROWS];
        for at in (first..k.min(first + F16_SUMS)).step_by(K_ALIGN) {
            // SAFETY: the caller vouches for the operands; this function's callers have `fmla` of f16.
            unsafe {
                let factors: [uint16x8_t; ROWS] =
                    core::array::from_fn(|row| vld1q_u16(left.add(row * left_stride + at)));
                let weights = right.add(8 * at);
                fmla!(weights, factors, half_sums, 0 1 2 3 4 5 6 7);
            }
        }
        for (sums, half_sum) in sums.iter_mut().zip(half_sums) {
            let halves = widen(half_sum);
            *sums = [vaddq_f32(sums[0], halves[0]), vaddq_f32(sums[1], halves[1])];
        }
    }
    sums
}

/// Eight f16 as two vectors of f32.
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "vector instructions")]
fn widen(x: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high);
    // SAFETY: the conversions are part of NEON.
    unsafe {
        asm!(
            "fcvtl {low:v}.4s, {x:v}.4h",
            low = out(vreg) low,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
        asm!(
            "fcvtl2 {high:v}.4s, {x:v}.8h",
            high = out(vreg) high,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [low, high]
}
