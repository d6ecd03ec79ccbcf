//! 16-bit floats where the CPU has no arithmetic on them: bf16 in memory, f32 in registers.

use super::{Half, HalfFormat, HalfKernel, Sums, bf16_bits, round_bf16};
use crate::simd::{Kernel, Simd};

/// bf16 on any instruction set: factors become f32 as they are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Widened<S: Simd>(pub S);

/// Runs a [`HalfKernel`] with the float vectors' instruction set enabled.
struct Enabled<K>(K);

impl<K: HalfKernel> Kernel for Enabled<K> {
    type Output = K::Output;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> K::Output {
        self.0.run(Widened(simd))
    }
}

#[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
impl<S: Simd> Half for Widened<S> {
    type Float = S;
    /// Factors are used many times for each time that they are stored.
    type Factor = f32;
    const FORMAT: HalfFormat = HalfFormat::Bf16;
    const FAST: bool = false;
    const TILE_ROWS: usize = S::TILE_ROWS;
    const GROUP: usize = 1;
    const PRODUCTS: usize = 1;

    #[inline(always)]
    fn run<K: HalfKernel>(self, kernel: K) -> K::Output {
        self.0.run(Enabled(kernel))
    }
    #[inline(always)]
    fn float(self) -> S {
        self.0
    }
    #[inline(always)]
    fn round(self, from: &[f32], to: &mut [u16]) {
        round_bf16(from, to);
    }
    #[inline(always)]
    fn round_factors(self, from: &[f32], to: &mut [f32]) {
        assert_eq!(from.len(), to.len(), "round: lengths");
        from.iter().zip(to).for_each(|(&x, to)| *to = f32::from_bits(u32::from(bf16_bits(x)) << 16));
    }
    #[inline(always)]
    fn step(self, sum: S::V, left: S::V, right: S::V) -> S::V {
        self.0.mul_add(left, right, sum)
    }
    #[inline(always)]
    unsafe fn product<const ROWS: usize>(
        self,
        left: *const f32,
        left_stride: usize,
        right: *const u16,
        k: usize,
    ) -> Sums<Self, ROWS> {
        let simd = self.0;
        let mut sums = [[simd.splat(0.0); 2]; ROWS];
        for step in 0..k {
            // SAFETY: `step < k`, `row < ROWS`; the caller vouches for both operands.
            unsafe {
                let right = right.add(step * 2 * S::LANES);
                let (first, second) = (simd.load_bf16(right), simd.load_bf16(right.add(S::LANES)));
                for (row, sum) in sums.iter_mut().enumerate() {
                    let factor = simd.splat(*left.add(row * left_stride + step));
                    sum[0] = simd.mul_add(factor, first, sum[0]);
                    sum[1] = simd.mul_add(factor, second, sum[1]);
                }
            }
        }
        sums
    }
}
