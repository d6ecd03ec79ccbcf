//! f32 and i32 vectors of AVX2 with FMA, and the token that proves both.

use core::arch::x86_64::*;

use super::{Kernel, Simd};

/// AVX2 with FMA: 8 lanes, 16 registers (12 accumulators, 2 of B, 1 broadcast).
#[derive(Clone, Copy, Debug)]
pub struct Avx2Fma(());

impl Avx2Fma {
    /// The token, if this CPU (and its operating system) has the instruction set.
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma");
        #[cfg(not(feature = "std"))]
        let found = cfg!(all(target_feature = "avx2", target_feature = "fma"));
        found.then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma")]
fn run_enabled<K: Kernel>(simd: Avx2Fma, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[expect(unsafe_code, reason = "vector intrinsics")]
impl Simd for Avx2Fma {
    type V = __m256;
    type I = __m256i;
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    const STORED_OFFSET: i32 = 0;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    feature_methods! { "avx2,fma":
        fn splat(x: f32) -> __m256 {
            _mm256_set1_ps(x)
        }
        fn add(x: __m256, y: __m256) -> __m256 {
            _mm256_add_ps(x, y)
        }
        fn sub(x: __m256, y: __m256) -> __m256 {
            _mm256_sub_ps(x, y)
        }
        fn mul(x: __m256, y: __m256) -> __m256 {
            _mm256_mul_ps(x, y)
        }
        fn div(x: __m256, y: __m256) -> __m256 {
            _mm256_div_ps(x, y)
        }
        fn mul_add(x: __m256, y: __m256, z: __m256) -> __m256 {
            _mm256_fmadd_ps(x, y, z)
        }
        fn min(x: __m256, y: __m256) -> __m256 {
            _mm256_min_ps(x, y)
        }
        fn max(x: __m256, y: __m256) -> __m256 {
            _mm256_max_ps(x, y)
        }
        fn exp2_of_low_bits(x: __m256) -> __m256 {
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(x)))
        }
        fn sum(x: __m256) -> f32 {
            let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
        fn largest(x: __m256) -> f32 {
            let four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
        fn splat_i32(x: i32) -> __m256i {
            _mm256_set1_epi32(x)
        }
        fn mul_i32(x: __m256i, y: __m256i) -> __m256i {
            _mm256_mullo_epi32(x, y)
        }
        fn to_f32(x: __m256i) -> __m256 {
            _mm256_cvtepi32_ps(x)
        }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: `self` proves AVX2; the caller vouches for `LANES` readable f32, at any alignment.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::V) {
        // SAFETY: `self` proves AVX2; the caller vouches for `LANES` writable f32, at any alignment.
        unsafe { _mm256_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::V {
        // SAFETY: `self` proves AVX2; the caller vouches for `LANES` readable u16, at any alignment.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }
    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> Self::I {
        // SAFETY: `self` proves AVX2; the caller vouches for `LANES` readable i32, at any alignment.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_factors(self, to: *mut u8, x: __m256) {
        // SAFETY: `self` proves AVX2; the caller vouches for `LANES` writable bytes, at any alignment.
        unsafe {
            let words = narrow(_mm256_cvtps_epi32(x));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words));
        }
    }
    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, x: __m256) {
        // SAFETY: `self` proves AVX2; the caller vouches for `LANES` writable i16, at any alignment.
        unsafe { _mm_storeu_si128(to.cast(), narrow(_mm256_cvtps_epi32(x))) }
    }
}

/// The low words of eight i32 that fit i16, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow(x: __m256i) -> __m128i {
    _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x))
}
