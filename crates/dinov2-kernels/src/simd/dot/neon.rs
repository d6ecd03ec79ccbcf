//! Integer dot products of NEON without the dot-product extension: widening multiplications, exact in 32 bits.

use core::arch::aarch64::*;

use super::super::Neon;
use super::{Dot, DotKernel, GROUP, PanelI8, Sums};

#[target_feature(enable = "neon")]
fn run_enabled<K: DotKernel>(dot: Neon, kernel: K) -> K::Output {
    kernel.run(dot)
}

/// Without dot products (Cortex-A53, A72): `smull` of eight bytes and `sadalp`, which adds neighbours in 32 bits.
///
/// Two instructions for eight products, as many as `smlal` of widened bytes, but only one of them multiplies. Adding a
/// second product in 16 bits would overflow where both are `-128 * -128`.
#[expect(unsafe_code, reason = "vector intrinsics")]
impl Dot for Neon {
    type Float = Neon;
    const TILE_ROWS: usize = 5;
    const SUMS_SATURATE: bool = false;
    const FAST_I16: bool = false;

    #[inline(always)]
    fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn float(self) -> Neon {
        self
    }
    feature_methods! { "neon":
        fn dot_i8(sum: int32x4_t, left: [int32x4_t; 2], right: [int32x4_t; 2]) -> int32x4_t {
            let mut sum = sum;
            for (left, right) in left.into_iter().zip(right) {
                let (left, right) = (vreinterpretq_s8_s32(left), vreinterpretq_s8_s32(right));
                let low = vpaddlq_s16(vmull_s8(vget_low_s8(left), vget_low_s8(right)));
                let high = vpaddlq_s16(vmull_high_s8(left, right));
                sum = vaddq_s32(sum, vpaddq_s32(low, high));
            }
            sum
        }
        fn dot_i16(sum: int32x4_t, left: int32x4_t, right: int32x4_t) -> int32x4_t {
            let (left, right) = (vreinterpretq_s16_s32(left), vreinterpretq_s16_s32(right));
            let low = vmull_s16(vget_low_s16(left), vget_low_s16(right));
            vaddq_s32(sum, vpaddq_s32(low, vmull_high_s16(left, right)))
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
        // SAFETY: `self` proves NEON. `group` is below the panel's groups, so both vectors of weights lie in it; `row < ROWS`, and
        // the caller vouches that every row is readable for all groups, which follow each other without gaps (`SUMS_SATURATE` is false).
        unsafe {
            // Two sums for each column, two columns to a vector.
            let mut sums = [[vdupq_n_s32(0); 4]; ROWS];
            for group in 0..2 * panel.steps {
                let weights = panel.weights.add(group * 8 * GROUP);
                let weights: [int8x8_t; 4] = core::array::from_fn(|at| vld1_s8(weights.add(8 * at)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factors = left.add(row * left_stride + group * GROUP).cast::<i32>().read_unaligned();
                    let factors = vreinterpret_s8_s32(vdup_n_s32(factors));
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = vpadalq_s16(*sum, vmull_s8(factors, weights));
                    }
                }
            }
            core::array::from_fn(|row| {
                let [first, second, third, fourth] = sums[row];
                let halves = [vpaddq_s32(first, second), vpaddq_s32(third, fourth)];
                core::array::from_fn(|half| vaddq_s32(start[row][half], halves[half]))
            })
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
        // SAFETY: `self` proves NEON. `pair < pairs` and `row < ROWS`; the caller vouches for both operands.
        unsafe {
            let mut sums = [[vdupq_n_s32(0); 2]; ROWS];
            for pair in 0..pairs {
                // The first factors of all eight columns, and the second.
                let int16x8x2_t(first, second) = vld2q_s16(right.add(pair * 16));
                for (row, [low, high]) in sums.iter_mut().enumerate() {
                    let left = left.add(row * left_stride + 2 * pair).cast::<i32>().read_unaligned();
                    let left = vreinterpret_s16_s32(vdup_n_s32(left));
                    *low = vmlal_lane_s16::<0>(*low, vget_low_s16(first), left);
                    *high = vmlal_high_lane_s16::<0>(*high, first, left);
                    *low = vmlal_lane_s16::<1>(*low, vget_low_s16(second), left);
                    *high = vmlal_high_lane_s16::<1>(*high, second, left);
                }
            }
            sums
        }
    }
}
