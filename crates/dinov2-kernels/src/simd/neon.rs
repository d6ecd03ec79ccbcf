//! f32 and i32 vectors of NEON, and its token.

use core::arch::aarch64::*;

use super::{Kernel, Simd};

/// NEON: 4 lanes, 32 registers (24 accumulators, 2 of B, broadcasts read from memory).
///
/// Twelve rows, because 24 independent sums cover the latency of a fused multiply-add on cores of up to four vector
/// pipes, and a step's 14 loads stay below its 24 multiply-adds; more rows would spill.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The token, if this CPU (and its operating system) has the instruction set.
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::arch::is_aarch64_feature_detected!("neon");
        #[cfg(not(feature = "std"))]
        let found = cfg!(target_feature = "neon");
        found.then_some(Self(()))
    }
}

#[target_feature(enable = "neon")]
fn run_enabled<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[expect(unsafe_code, reason = "vector intrinsics")]
impl Simd for Neon {
    type V = float32x4_t;
    type I = int32x4_t;
    const LANES: usize = 4;
    const TILE_ROWS: usize = 12;
    const STORED_OFFSET: i32 = 128;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    feature_methods! { "neon":
        fn splat(x: f32) -> float32x4_t {
            vdupq_n_f32(x)
        }
        fn add(x: float32x4_t, y: float32x4_t) -> float32x4_t {
            vaddq_f32(x, y)
        }
        fn sub(x: float32x4_t, y: float32x4_t) -> float32x4_t {
            vsubq_f32(x, y)
        }
        fn mul(x: float32x4_t, y: float32x4_t) -> float32x4_t {
            vmulq_f32(x, y)
        }
        fn div(x: float32x4_t, y: float32x4_t) -> float32x4_t {
            vdivq_f32(x, y)
        }
        fn mul_add(x: float32x4_t, y: float32x4_t, z: float32x4_t) -> float32x4_t {
            vfmaq_f32(z, x, y)
        }
        // The number where one operand is NaN: `vminq_f32` and `vmaxq_f32` would return NaN.
        fn min(x: float32x4_t, y: float32x4_t) -> float32x4_t {
            vminnmq_f32(x, y)
        }
        fn max(x: float32x4_t, y: float32x4_t) -> float32x4_t {
            vmaxnmq_f32(x, y)
        }
        fn exp2_of_low_bits(x: float32x4_t) -> float32x4_t {
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(x)))
        }
        fn sum(x: float32x4_t) -> f32 {
            vaddvq_f32(x)
        }
        fn largest(x: float32x4_t) -> f32 {
            vmaxnmvq_f32(x)
        }
        fn splat_i32(x: i32) -> int32x4_t {
            vdupq_n_s32(x)
        }
        fn mul_i32(x: int32x4_t, y: int32x4_t) -> int32x4_t {
            vmulq_s32(x, y)
        }
        fn to_f32(x: int32x4_t) -> float32x4_t {
            vcvtq_f32_s32(x)
        }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: `self` proves NEON; the caller vouches for `LANES` readable f32, at any alignment.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::V) {
        // SAFETY: `self` proves NEON; the caller vouches for `LANES` writable f32, at any alignment.
        unsafe { vst1q_f32(to, x) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::V {
        // SAFETY: `self` proves NEON; the caller vouches for `LANES` readable u16, at any alignment.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from))) }
    }
    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> Self::I {
        // SAFETY: `self` proves NEON; the caller vouches for `LANES` readable i32, at any alignment.
        unsafe { vld1q_s32(from) }
    }
    #[inline(always)]
    unsafe fn store_factors(self, to: *mut u8, x: float32x4_t) {
        // SAFETY: `self` proves NEON; the caller vouches for `LANES` writable bytes, at any alignment.
        unsafe {
            let words = vmovn_u32(vcvtq_u32_f32(x));
            // Less 128 in eight bits: the top bit flipped.
            let bytes = veor_u8(vmovn_u16(vcombine_u16(words, words)), vdup_n_u8(128));
            to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)));
        }
    }
    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, x: float32x4_t) {
        // SAFETY: `self` proves NEON; the caller vouches for `LANES` writable i16, at any alignment.
        unsafe { vst1_s16(to, vmovn_s32(vcvtnq_s32_f32(x))) }
    }
}
