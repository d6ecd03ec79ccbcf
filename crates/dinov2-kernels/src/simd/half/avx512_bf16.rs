//! 16-bit floats of AVX-512 BF16: `vdpbf16ps` multiplies pairs of bf16 and sums them in f32.

use core::arch::x86_64::*;
use core::mem::transmute;

use super::{Half, HalfFormat, HalfKernel, Sums, round_bf16};
use crate::simd::{Avx512F, Avx512Vnni, Simd};

/// AVX-512 with VNNI and BF16: `vdpbf16ps`, two products per lane (Cooper Lake, Sapphire Rapids, Zen 4 and later).
#[derive(Clone, Copy, Debug)]
pub struct Avx512Bf16 {
    float: Avx512F,
    dot: Avx512Vnni,
}

impl Avx512Bf16 {
    /// The token, if this CPU (and its operating system) has the instruction set.
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::is_x86_feature_detected!("avx512bf16");
        #[cfg(not(feature = "std"))]
        let found = cfg!(target_feature = "avx512bf16");
        let (float, dot) = (Avx512F::detect()?, Avx512Vnni::detect()?);
        found.then_some(Self { float, dot })
    }

    /// The integers that go with it.
    pub(crate) fn dot(self) -> Avx512Vnni {
        self.dot
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vnni,avx512bf16,avx2,fma")]
fn run_enabled<K: HalfKernel>(half: Avx512Bf16, kernel: K) -> K::Output {
    kernel.run(half)
}

#[inline(always)]
#[expect(unsafe_code, reason = "there is no intrinsic for it")]
fn bf16(bits: __m512i) -> __m512bh {
    // SAFETY: every bit pattern is a value of both types.
    unsafe { transmute::<__m512i, __m512bh>(bits) }
}

#[expect(unsafe_code, reason = "vector intrinsics")]
impl Half for Avx512Bf16 {
    type Float = Avx512F;
    type Factor = u16;
    const FORMAT: HalfFormat = HalfFormat::Bf16;
    const FAST: bool = true;
    const TILE_ROWS: usize = <Avx512F as Simd>::TILE_ROWS;
    const GROUP: usize = 2;
    const PRODUCTS: usize = 2;

    #[inline(always)]
    fn run<K: HalfKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn float(self) -> Avx512F {
        self.float
    }
    #[inline(always)]
    fn round(self, from: &[f32], to: &mut [u16]) {
        round_bf16(from, to);
    }
    #[inline(always)]
    fn round_factors(self, from: &[f32], to: &mut [u16]) {
        self.round(from, to);
    }
    #[inline(always)]
    fn step(self, sum: __m512, left: __m512, right: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512 BF16; all operands are values.
        unsafe { _mm512_dpbf16_ps(sum, bf16(_mm512_castps_si512(left)), bf16(_mm512_castps_si512(right))) }
    }
    #[inline(always)]
    unsafe fn product<const ROWS: usize>(
        self,
        left: *const u16,
        left_stride: usize,
        right: *const u16,
        k: usize,
    ) -> Sums<Self, ROWS> {
        // SAFETY: `self` proves AVX-512 BF16. `pair < k / 2` and `row < ROWS`; the caller vouches for both operands.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            for pair in 0..k / 2 {
                let right = right.add(pair * 64).cast::<__m512i>();
                let right = [bf16(_mm512_loadu_si512(right)), bf16(_mm512_loadu_si512(right.add(1)))];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let left = left.add(row * left_stride + 2 * pair).cast::<i32>().read_unaligned();
                    let left = bf16(_mm512_set1_epi32(left));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = _mm512_dpbf16_ps(*sum, left, right);
                    }
                }
            }
            sums
        }
    }
}
