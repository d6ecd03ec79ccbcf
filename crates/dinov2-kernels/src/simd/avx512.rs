//! f32 and i32 vectors of AVX-512, and the token that proves F, DQ and BW.

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
        let found =
            cfg!(all(target_feature = "avx512f", target_feature = "avx512dq", target_feature = "avx512bw"));
        found.then_some(Self(()))
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx2,fma")]
fn run_enabled<K: Kernel>(simd: Avx512F, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[expect(unsafe_code, reason = "vector intrinsics")]
impl Simd for Avx512F {
    type V = __m512;
    type I = __m512i;
    const LANES: usize = 16;
    const TILE_ROWS: usize = 12;
    const STORED_OFFSET: i32 = 0;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    feature_methods! { "avx512f,avx512dq,avx512bw,avx2,fma":
        fn splat(x: f32) -> __m512 {
            _mm512_set1_ps(x)
        }
        fn add(x: __m512, y: __m512) -> __m512 {
            _mm512_add_ps(x, y)
        }
        fn sub(x: __m512, y: __m512) -> __m512 {
            _mm512_sub_ps(x, y)
        }
        fn mul(x: __m512, y: __m512) -> __m512 {
            _mm512_mul_ps(x, y)
        }
        fn div(x: __m512, y: __m512) -> __m512 {
            _mm512_div_ps(x, y)
        }
        fn mul_add(x: __m512, y: __m512, z: __m512) -> __m512 {
            _mm512_fmadd_ps(x, y, z)
        }
        fn min(x: __m512, y: __m512) -> __m512 {
            _mm512_min_ps(x, y)
        }
        fn max(x: __m512, y: __m512) -> __m512 {
            _mm512_max_ps(x, y)
        }
        fn exp2_of_low_bits(x: __m512) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(x)))
        }
        fn sum(x: __m512) -> f32 {
            _mm512_reduce_add_ps(x)
        }
        fn largest(x: __m512) -> f32 {
            _mm512_reduce_max_ps(x)
        }
        fn splat_i32(x: i32) -> __m512i {
            _mm512_set1_epi32(x)
        }
        fn mul_i32(x: __m512i, y: __m512i) -> __m512i {
            _mm512_mullo_epi32(x, y)
        }
        fn to_f32(x: __m512i) -> __m512 {
            _mm512_cvtepi32_ps(x)
        }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: `self` proves AVX-512; the caller vouches for `LANES` readable f32, at any alignment.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::V) {
        // SAFETY: `self` proves AVX-512; the caller vouches for `LANES` writable f32, at any alignment.
        unsafe { _mm512_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::V {
        // SAFETY: `self` proves AVX-512; the caller vouches for `LANES` readable u16, at any alignment.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> Self::I {
        // SAFETY: `self` proves AVX-512; the caller vouches for `LANES` readable i32, at any alignment.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_factors(self, to: *mut u8, x: __m512) {
        // SAFETY: `self` proves AVX-512; the caller vouches for `LANES` writable bytes, at any alignment.
        unsafe {
            _mm_storeu_si128(to.cast(), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(x)));
        }
    }
    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, x: __m512) {
        // SAFETY: `self` proves AVX-512; the caller vouches for `LANES` writable i16, at any alignment.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x))) }
    }
}
