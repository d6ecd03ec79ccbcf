//! Integer dot products of AVX-VNNI: `vpdpbusd` and `vpdpwssd` on 8 lanes, exact in 32 bits.

use core::arch::x86_64::*;

use super::super::Avx2Fma;
use super::{Dot, DotKernel, GROUP, PanelI8, Sums};

/// AVX2 with AVX-VNNI: `vpdpbusd` and `vpdpwssd` on 8 lanes (Alder Lake, Zen 5 and later).
#[derive(Clone, Copy, Debug)]
pub struct AvxVnni(Avx2Fma);

impl AvxVnni {
    /// The token, if this CPU (and its operating system) has the instruction set.
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::is_x86_feature_detected!("avxvnni");
        #[cfg(not(feature = "std"))]
        let found = cfg!(target_feature = "avxvnni");
        Avx2Fma::detect().filter(|_| found).map(Self)
    }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn run_enabled<K: DotKernel>(dot: AvxVnni, kernel: K) -> K::Output {
    kernel.run(dot)
}

#[expect(unsafe_code, reason = "vector intrinsics")]
impl Dot for AvxVnni {
    type Float = Avx2Fma;
    const TILE_ROWS: usize = 6;
    const SUMS_SATURATE: bool = false;
    const FAST_I16: bool = true;

    #[inline(always)]
    fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn float(self) -> Avx2Fma {
        self.0
    }
    feature_methods! { "avx2,fma,avxvnni":
        fn dot_i8(sum: __m256i, left: [__m256i; 2], right: [__m256i; 2]) -> __m256i {
            let sum = _mm256_dpbusd_avx_epi32(sum, left[0], right[0]);
            _mm256_dpbusd_avx_epi32(sum, left[1], right[1])
        }
        fn dot_i16(sum: __m256i, left: __m256i, right: __m256i) -> __m256i {
            _mm256_dpwssd_avx_epi32(sum, left, right)
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
        // SAFETY: `self` proves AVX-VNNI. `group` is below the panel's groups, so both vectors of weights lie in it; `row < ROWS`, and
        // the caller vouches that every row is readable for all groups, which follow each other without gaps (`SUMS_SATURATE` is false).
        unsafe {
            let mut sums = start;
            for group in 0..2 * panel.steps {
                let weights = panel.weights.add(group * 16 * GROUP).cast::<__m256i>();
                let weights = [_mm256_loadu_si256(weights), _mm256_loadu_si256(weights.add(1))];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factors = left.add(row * left_stride + group * GROUP).cast::<i32>().read_unaligned();
                    let factors = _mm256_set1_epi32(factors);
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_dpbusd_avx_epi32(*sum, factors, weights);
                    }
                }
            }
            sums
        }
    }
}
