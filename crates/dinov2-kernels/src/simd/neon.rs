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

// Each intrinsic's SAFETY: `self` proves that the CPU has the instruction set.
#[expect(unsafe_code, reason = "vector intrinsics")]
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason holds for all: `self` proves the CPU feature"
)]
impl Simd for Neon {
    type V = float32x4_t;
    type I = int32x4_t;
    const LANES: usize = 4;
    const TILE_ROWS: usize = 12;
    const STORED_OFFSET: i32 = 128;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::V) {
        unsafe { vst1q_f32(to, x) }
    }
    #[inline(always)]
    fn add(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { vaddq_f32(x, y) }
    }
    #[inline(always)]
    fn sub(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { vsubq_f32(x, y) }
    }
    #[inline(always)]
    fn mul(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { vmulq_f32(x, y) }
    }
    #[inline(always)]
    fn div(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { vdivq_f32(x, y) }
    }
    #[inline(always)]
    fn mul_add(self, x: Self::V, y: Self::V, z: Self::V) -> Self::V {
        unsafe { vfmaq_f32(z, x, y) }
    }
    // The number where one operand is NaN: `vminq_f32` and `vmaxq_f32` would return NaN.
    #[inline(always)]
    fn min(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { vminnmq_f32(x, y) }
    }
    #[inline(always)]
    fn max(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { vmaxnmq_f32(x, y) }
    }
    #[inline(always)]
    fn exp2_of_low_bits(self, x: Self::V) -> Self::V {
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(x))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::V {
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from))) }
    }
    #[inline(always)]
    fn sum(self, x: Self::V) -> f32 {
        unsafe { vaddvq_f32(x) }
    }
    #[inline(always)]
    fn largest(self, x: Self::V) -> f32 {
        unsafe { vmaxnmvq_f32(x) }
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        unsafe { vdupq_n_s32(x) }
    }
    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> Self::I {
        unsafe { vld1q_s32(from) }
    }
    #[inline(always)]
    fn mul_i32(self, x: Self::I, y: Self::I) -> Self::I {
        unsafe { vmulq_s32(x, y) }
    }
    #[inline(always)]
    fn to_f32(self, x: Self::I) -> float32x4_t {
        unsafe { vcvtq_f32_s32(x) }
    }
    #[inline(always)]
    unsafe fn store_factors(self, to: *mut u8, x: float32x4_t) {
        unsafe {
            let words = vmovn_u32(vcvtq_u32_f32(x));
            // Less 128 in eight bits: the top bit flipped.
            let bytes = veor_u8(vmovn_u16(vcombine_u16(words, words)), vdup_n_u8(128));
            to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)));
        }
    }
    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, x: float32x4_t) {
        unsafe { vst1_s16(to, vmovn_s32(vcvtnq_s32_f32(x))) }
    }
}
