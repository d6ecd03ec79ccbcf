use core::arch::x86_64::*;

use super::super::Avx2Fma;
use super::{Dot, DotKernel, PanelI8, STEP, Sums};

#[target_feature(enable = "avx2,fma")]
fn run_enabled<K: DotKernel>(dot: Avx2Fma, kernel: K) -> K::Output {
    kernel.run(dot)
}

/// Without VNNI: `vpmaddubsw` sums pairs of products in 16 bits, two of these are added, and `vpmaddwd` with ones widens
/// them: five instructions for 64 products, where widening the bytes first would need eight.
#[expect(unsafe_code, reason = "vector intrinsics")]
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason holds for all: `self` proves the CPU feature, and the callers vouch for their pointers"
)]
impl Dot for Avx2Fma {
    type Float = Avx2Fma;
    type I = __m256i;
    const TILE_ROWS: usize = 6;
    const SUMS_SATURATE: bool = true;
    const STORED_OFFSET: i32 = 0;
    const FAST_I16: bool = true;

    #[inline(always)]
    fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn float(self) -> Avx2Fma {
        self
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> Self::I {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    fn mul_i32(self, x: Self::I, y: Self::I) -> Self::I {
        unsafe { _mm256_mullo_epi32(x, y) }
    }
    #[inline(always)]
    fn to_f32(self, x: Self::I) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(x) }
    }
    #[inline(always)]
    unsafe fn store_factors(self, to: *mut u8, x: __m256) {
        unsafe {
            let words = narrow(_mm256_cvtps_epi32(x));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words));
        }
    }
    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, x: __m256) {
        unsafe { _mm_storeu_si128(to.cast(), narrow(_mm256_cvtps_epi32(x))) }
    }
    #[inline(always)]
    fn dot_i8(self, sum: Self::I, left: [Self::I; 2], right: [Self::I; 2]) -> Self::I {
        unsafe {
            let first = _mm256_maddubs_epi16(left[0], right[0]);
            let second = _mm256_maddubs_epi16(left[1], right[1]);
            let products = _mm256_madd_epi16(_mm256_add_epi16(first, second), _mm256_set1_epi16(1));
            _mm256_add_epi32(sum, products)
        }
    }
    #[inline(always)]
    fn dot_i16(self, sum: Self::I, left: Self::I, right: Self::I) -> Self::I {
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(left, right)) }
    }
    #[inline(always)]
    unsafe fn product_i8<const ROWS: usize>(
        self,
        left: *const u8,
        left_stride: usize,
        panel: PanelI8,
        start: Sums<Self, ROWS>,
    ) -> Sums<Self, ROWS> {
        unsafe {
            let mut sums = start;
            for step in 0..panel.steps {
                let weights = panel.weights.add(step * 16 * STEP).cast::<__m256i>();
                let weights: [__m256i; 4] = core::array::from_fn(|at| _mm256_loadu_si256(weights.add(at)));
                let left = left.add(usize::from(*panel.offsets.add(step)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factors = left.add(row * left_stride).cast::<i32>();
                    let first = _mm256_set1_epi32(factors.read_unaligned());
                    let second = _mm256_set1_epi32(factors.add(1).read_unaligned());
                    for (half, sum) in sums.iter_mut().enumerate() {
                        *sum = self.dot_i8(*sum, [first, second], [weights[half], weights[2 + half]]);
                    }
                }
            }
            sums
        }
    }
    #[inline(always)]
    unsafe fn product_i16<const ROWS: usize>(
        self,
        left: *const i16,
        left_stride: usize,
        right: *const i16,
        pairs: usize,
    ) -> Sums<Self, ROWS> {
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            for pair in 0..pairs {
                let right = right.add(pair * 32).cast::<__m256i>();
                let right = [_mm256_loadu_si256(right), _mm256_loadu_si256(right.add(1))];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let left = left.add(row * left_stride + 2 * pair).cast::<i32>().read_unaligned();
                    let left = _mm256_set1_epi32(left);
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = self.dot_i16(*sum, left, right);
                    }
                }
            }
            sums
        }
    }
}

/// The low words of eight i32 that fit i16, in order.
#[inline(always)]
#[expect(unsafe_code, reason = "vector intrinsics")]
unsafe fn narrow(x: __m256i) -> __m128i {
    // SAFETY: the caller holds a token of AVX2.
    unsafe { _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x)) }
}
