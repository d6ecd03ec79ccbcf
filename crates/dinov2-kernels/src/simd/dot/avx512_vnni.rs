//! Integer dot products of AVX-512 VNNI: `vpdpbusd` and `vpdpwssd`, exact in 32 bits.

use core::arch::x86_64::*;

use super::super::Avx512F;
use super::{Dot, DotKernel, GROUP, PanelI8, Sums};

/// AVX-512 with VNNI: `vpdpbusd` and `vpdpwssd` on 16 lanes (Cascade Lake, Ice Lake, Zen 4 and later).
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni(Avx512F);

impl Avx512Vnni {
    /// The token, if this CPU (and its operating system) has the instruction set.
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::is_x86_feature_detected!("avx512vnni");
        #[cfg(not(feature = "std"))]
        let found = cfg!(target_feature = "avx512vnni");
        Avx512F::detect().filter(|_| found).map(Self)
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vnni,avx2,fma")]
fn run_enabled<K: DotKernel>(dot: Avx512Vnni, kernel: K) -> K::Output {
    kernel.run(dot)
}

#[expect(unsafe_code, reason = "vector intrinsics")]
impl Dot for Avx512Vnni {
    type Float = Avx512F;
    const TILE_ROWS: usize = 12;
    const SUMS_SATURATE: bool = false;
    const FAST_I16: bool = true;

    #[inline(always)]
    fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn float(self) -> Avx512F {
        self.0
    }
    feature_methods! { "avx512f,avx512dq,avx512bw,avx512vnni,avx2,fma":
        fn dot_i8(sum: __m512i, left: [__m512i; 2], right: [__m512i; 2]) -> __m512i {
            let sum = _mm512_dpbusd_epi32(sum, left[0], right[0]);
            _mm512_dpbusd_epi32(sum, left[1], right[1])
        }
        fn dot_i16(sum: __m512i, left: __m512i, right: __m512i) -> __m512i {
            _mm512_dpwssd_epi32(sum, left, right)
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
        // SAFETY: `self` proves AVX-512 VNNI. `group` is below the panel's groups, so both vectors of weights lie in it; `row < ROWS`, and
        // the caller vouches that every row is readable for all groups, which follow each other without gaps (`SUMS_SATURATE` is false).
        unsafe {
            let mut sums = start;
            for group in 0..2 * panel.steps {
                let weights = panel.weights.add(group * 32 * GROUP).cast::<__m512i>();
                let weights = [_mm512_loadu_si512(weights), _mm512_loadu_si512(weights.add(1))];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factors = left.add(row * left_stride + group * GROUP).cast::<i32>().read_unaligned();
                    let factors = _mm512_set1_epi32(factors);
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, factors, weights);
                    }
                }
            }
            sums
        }
    }
}
