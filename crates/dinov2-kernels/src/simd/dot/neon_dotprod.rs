//! Integer dot products of NEON with `sdot`, and the token that proves it together with arithmetic on f16.

use core::arch::aarch64::*;
use core::arch::asm;

use super::super::Neon;
use super::{Dot, DotKernel, PanelI8, STEP, Sums};

/// NEON with `sdot`: four products per lane and arithmetic on f16 (Cortex-A55, A76 and later, Apple M1, Neoverse N1).
#[derive(Clone, Copy, Debug)]
pub struct NeonDotprod(Neon);

impl NeonDotprod {
    /// The token, if this CPU (and its operating system) has the instruction set.
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::arch::is_aarch64_feature_detected!("dotprod")
            && std::arch::is_aarch64_feature_detected!("fp16");
        #[cfg(not(feature = "std"))]
        let found = cfg!(all(target_feature = "dotprod", target_feature = "fp16"));
        Neon::detect().filter(|_| found).map(Self)
    }
}

#[target_feature(enable = "neon,dotprod")]
fn run_enabled<K: DotKernel>(dot: NeonDotprod, kernel: K) -> K::Output {
    kernel.run(dot)
}

#[expect(unsafe_code, reason = "vector intrinsics")]
impl Dot for NeonDotprod {
    type Float = Neon;
    const TILE_ROWS: usize = 12;
    const SUMS_SATURATE: bool = false;
    const FAST_I16: bool = false;

    #[inline(always)]
    fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn float(self) -> Neon {
        self.0
    }
    #[inline(always)]
    fn dot_i8(self, sum: int32x4_t, left: [int32x4_t; 2], right: [int32x4_t; 2]) -> int32x4_t {
        let mut sum = sum;
        for (left, right) in left.into_iter().zip(right) {
            // SAFETY: `self` proves `sdot`, which touches registers only.
            unsafe {
                asm!(
                    "sdot {sum:v}.4s, {left:v}.16b, {right:v}.16b",
                    sum = inout(vreg) sum,
                    left = in(vreg) left,
                    right = in(vreg) right,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
        sum
    }
    #[inline(always)]
    fn dot_i16(self, sum: int32x4_t, left: int32x4_t, right: int32x4_t) -> int32x4_t {
        self.0.dot_i16(sum, left, right)
    }
    #[inline(always)]
    unsafe fn product_i8<const ROWS: usize>(
        self,
        left: *const u8,
        left_stride: usize,
        panel: PanelI8,
        start: Sums<Self, ROWS>,
    ) -> Sums<Self, ROWS> {
        // SAFETY: `self` proves `sdot`; the caller vouches for the rows and the panel.
        unsafe { product(left, left_stride, panel, start) }
    }
    #[inline(always)]
    unsafe fn product_i16<const ROWS: usize>(
        self,
        left: *const i16,
        left_stride: usize,
        right: *const i16,
        pairs: usize,
    ) -> Sums<Self, ROWS> {
        // SAFETY: the same contract; the caller vouches for both operands.
        unsafe { self.0.product_i16(left, left_stride, right, pairs) }
    }
}

/// Rows whose sums take turns, so that an instruction need not wait for the one before it.
const TURN_ROWS: usize = 3;

/// [`Dot::product_i8`]. By `asm!`, because the intrinsic is not stable; one instruction per block, so that the compiler
/// chooses the registers for every number of rows.
///
/// 24 sums, a step's four vectors of weights, and three rows' eight factors are 31 registers.
///
/// # Safety
/// As [`Dot::product_i8`].
#[target_feature(enable = "neon,dotprod")]
#[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
unsafe fn product<const ROWS: usize>(
    left: *const u8,
    left_stride: usize,
    panel: PanelI8,
    start: [[int32x4_t; 2]; ROWS],
) -> [[int32x4_t; 2]; ROWS] {
    macro_rules! sdot {
        ($sum:expr, $weights:expr, $factors:expr, $lane:literal) => {
            asm!(
                concat!("sdot {sum:v}.4s, {weights:v}.16b, {factors:v}.4b[", $lane, "]"),
                sum = inout(vreg) $sum,
                weights = in(vreg) $weights,
                factors = in(vreg) $factors,
                options(pure, nomem, nostack, preserves_flags),
            )
        };
    }
    let mut sums = start;
    for step in 0..panel.steps {
        // SAFETY: the caller vouches for the panel's steps and the rows; this function's callers have `sdot`.
        unsafe {
            let weights = panel.weights.add(step * 8 * STEP);
            let weights: [int8x16_t; 4] = core::array::from_fn(|at| vld1q_s8(weights.add(16 * at)));
            let left = left.cast::<i8>().add(step * STEP);
            // Ends that are constants, so that everything is unrolled.
            for turn in 0..ROWS.div_ceil(TURN_ROWS) {
                let mut factors = [vdup_n_s8(0); TURN_ROWS];
                for at in 0..TURN_ROWS {
                    let row = turn * TURN_ROWS + at;
                    if row < ROWS {
                        factors[at] = vld1_s8(left.add(row * left_stride));
                        sdot!(sums[row][0], weights[0], factors[at], 0);
                        sdot!(sums[row][1], weights[1], factors[at], 0);
                    }
                }
                for at in 0..TURN_ROWS {
                    let row = turn * TURN_ROWS + at;
                    if row < ROWS {
                        sdot!(sums[row][0], weights[2], factors[at], 1);
                        sdot!(sums[row][1], weights[3], factors[at], 1);
                    }
                }
            }
        }
    }
    sums
}
