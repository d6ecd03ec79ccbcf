//! Integer dot products of AVX2: bytes by `vpmaddubsw`, which sums pairs in 16 bits and saturates; pairs of i16 by `vpmaddwd`.

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
impl Dot for Avx2Fma {
    type Float = Avx2Fma;
    const TILE_ROWS: usize = 6;
    const SUMS_SATURATE: bool = true;
    const FAST_I16: bool = true;

    #[inline(always)]
    fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn float(self) -> Avx2Fma {
        self
    }
    feature_methods! { "avx2,fma":
        fn dot_i8(sum: __m256i, left: [__m256i; 2], right: [__m256i; 2]) -> __m256i {
            let first = _mm256_maddubs_epi16(left[0], right[0]);
            let second = _mm256_maddubs_epi16(left[1], right[1]);
            let products = _mm256_madd_epi16(_mm256_add_epi16(first, second), _mm256_set1_epi16(1));
            _mm256_add_epi32(sum, products)
        }
        fn dot_i16(sum: __m256i, left: __m256i, right: __m256i) -> __m256i {
            _mm256_add_epi32(sum, _mm256_madd_epi16(left, right))
        }
    }
    #[inline(always)]
    unsafe fn product_i8<const ROWS: usize>(
        self,
        left: *const u8,
        left_stride: usize,
        panel: PanelI8,
        start: Sums<Self, ROWS>,
    ) -> Sums<Self, ROWS> {
        // SAFETY: `self` proves AVX2. `step < panel.steps`, so the four vectors of weights and the offset lie in the panel; `row < ROWS`,
        // and the caller vouches that every row is readable for `STEP` bytes from each of the panel's offsets.
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
}
