use core::arch::x86_64::*;

use super::super::Avx2Fma;
use super::{Dot, DotKernel, FloatOf, GROUP, PanelI8, Sums};

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
#[expect(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason holds for all: `self` proves the CPU feature, and the callers vouch for their pointers"
)]
impl Dot for AvxVnni {
    type Float = Avx2Fma;
    type I = __m256i;
    const TILE_ROWS: usize = 6;
    const SUMS_SATURATE: bool = false;
    const STORED_OFFSET: i32 = 0;
    const FAST_I16: bool = true;

    #[inline(always)]
    fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn float(self) -> Avx2Fma {
        self.0
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        self.0.splat_i32(x)
    }
    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> Self::I {
        unsafe { self.0.load_i32(from) }
    }
    #[inline(always)]
    fn mul_i32(self, x: Self::I, y: Self::I) -> Self::I {
        self.0.mul_i32(x, y)
    }
    #[inline(always)]
    fn to_f32(self, x: Self::I) -> FloatOf<Self> {
        self.0.to_f32(x)
    }
    #[inline(always)]
    unsafe fn store_factors(self, to: *mut u8, x: FloatOf<Self>) {
        unsafe { self.0.store_factors(to, x) }
    }
    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, x: FloatOf<Self>) {
        unsafe { self.0.store_i16(to, x) }
    }
    #[inline(always)]
    fn dot_i8(self, sum: Self::I, left: [Self::I; 2], right: [Self::I; 2]) -> Self::I {
        unsafe {
            let sum = _mm256_dpbusd_avx_epi32(sum, left[0], right[0]);
            _mm256_dpbusd_avx_epi32(sum, left[1], right[1])
        }
    }
    #[inline(always)]
    fn dot_i16(self, sum: Self::I, left: Self::I, right: Self::I) -> Self::I {
        unsafe { _mm256_dpwssd_avx_epi32(sum, left, right) }
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
