//! Integer dot products of AVX-512 without VNNI: the instructions of AVX2 on 16 lanes, which saturate in the same way.

use core::arch::x86_64::*;

use super::super::Avx512F;
use super::{Dot, DotKernel, PanelI8, STEP, Sums};

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx2,fma")]
fn run_enabled<K: DotKernel>(dot: Avx512F, kernel: K) -> K::Output {
    kernel.run(dot)
}

/// Without VNNI (Skylake-X): as AVX2, on 16 lanes.
#[expect(unsafe_code, reason = "vector intrinsics")]
impl Dot for Avx512F {
    type Float = Avx512F;
    const TILE_ROWS: usize = 12;
    const SUMS_SATURATE: bool = true;
    const FAST_I16: bool = true;

    #[inline(always)]
    fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn float(self) -> Avx512F {
        self
    }
    feature_methods! { "avx512f,avx512dq,avx512bw,avx2,fma":
        fn dot_i8(sum: __m512i, left: [__m512i; 2], right: [__m512i; 2]) -> __m512i {
            let first = _mm512_maddubs_epi16(left[0], right[0]);
            let second = _mm512_maddubs_epi16(left[1], right[1]);
            let products = _mm512_madd_epi16(_mm512_add_epi16(first, second), _mm512_set1_epi16(1));
            _mm512_add_epi32(sum, products)
        }
        fn dot_i16(sum: __m512i, left: __m512i, right: __m512i) -> __m512i {
            _mm512_add_epi32(sum, _mm512_madd_epi16(left, right))
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
        // SAFETY: `self` proves AVX-512. `step < panel.steps`, so the four vectors of weights and the offset lie in the panel; `row < ROWS`,
        // and the caller vouches that every row is readable for `STEP` bytes from each of the panel's offsets.
        unsafe {
            let mut sums = start;
            for step in 0..panel.steps {
                let weights = panel.weights.add(step * 32 * STEP).cast::<__m512i>();
                let weights: [__m512i; 4] = core::array::from_fn(|at| _mm512_loadu_si512(weights.add(at)));
                let left = left.add(usize::from(*panel.offsets.add(step)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factors = left.add(row * left_stride).cast::<i32>();
                    let first = _mm512_set1_epi32(factors.read_unaligned());
                    let second = _mm512_set1_epi32(factors.add(1).read_unaligned());
                    for (half, sum) in sums.iter_mut().enumerate() {
                        *sum = self.dot_i8(*sum, [first, second], [weights[half], weights[2 + half]]);
                    }
                }
            }
            sums
        }
    }
}
