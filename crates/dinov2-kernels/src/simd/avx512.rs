use core::arch::x86_64::*;

use super::{Kernel, Simd};

/// AVX-512 F, DQ and BW: 16 lanes, 32 registers (24 accumulators, 2 of B, broadcasts from memory).
#[derive(Clone, Copy, Debug)]
pub struct Avx512F(());

impl Avx512F {
    /// The token, if this CPU (and its operating system) has the instruction set.
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512dq")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("fma");
        #[cfg(not(feature = "std"))]
        let found = cfg!(all(target_feature = "avx512f", target_feature = "avx512bw"));
        found.then_some(Self(()))
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx2,fma")]
fn run_enabled<K: Kernel>(simd: Avx512F, kernel: K) -> K::Output {
    kernel.run(simd)
}

// Each intrinsic's SAFETY: `self` proves that the CPU has the instruction set.
#[expect(unsafe_code, reason = "vector intrinsics")]
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason holds for all: `self` proves the CPU feature"
)]
impl Simd for Avx512F {
    type V = __m512;
    type I = __m512i;
    const LANES: usize = 16;
    const TILE_ROWS: usize = 12;
    const STORED_OFFSET: i32 = 0;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::V) {
        unsafe { _mm512_storeu_ps(to, x) }
    }
    #[inline(always)]
    fn add(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { _mm512_add_ps(x, y) }
    }
    #[inline(always)]
    fn sub(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { _mm512_sub_ps(x, y) }
    }
    #[inline(always)]
    fn mul(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { _mm512_mul_ps(x, y) }
    }
    #[inline(always)]
    fn div(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { _mm512_div_ps(x, y) }
    }
    #[inline(always)]
    fn mul_add(self, x: Self::V, y: Self::V, z: Self::V) -> Self::V {
        unsafe { _mm512_fmadd_ps(x, y, z) }
    }
    #[inline(always)]
    fn min(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { _mm512_min_ps(x, y) }
    }
    #[inline(always)]
    fn max(self, x: Self::V, y: Self::V) -> Self::V {
        unsafe { _mm512_max_ps(x, y) }
    }
    #[inline(always)]
    fn exp2_of_low_bits(self, x: Self::V) -> Self::V {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(x))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::V {
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    fn sum(self, x: Self::V) -> f32 {
        unsafe { _mm512_reduce_add_ps(x) }
    }
    #[inline(always)]
    fn largest(self, x: Self::V) -> f32 {
        unsafe { _mm512_reduce_max_ps(x) }
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> Self::I {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    fn mul_i32(self, x: Self::I, y: Self::I) -> Self::I {
        unsafe { _mm512_mullo_epi32(x, y) }
    }
    #[inline(always)]
    fn to_f32(self, x: Self::I) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn store_factors(self, to: *mut u8, x: __m512) {
        unsafe {
            _mm_storeu_si128(to.cast(), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(x)));
        }
    }
    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, x: __m512) {
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x))) }
    }
}
