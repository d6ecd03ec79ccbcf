//! Integer dot products of NEON with `smmla`, and the token that proves it together with arithmetic on f16.

use core::arch::aarch64::*;
use core::arch::asm;

use super::super::Neon;
use super::{Dot, DotKernel, PanelI8, STEP, Sums};

/// NEON with `smmla`: two rows by two columns by eight factors, and arithmetic on f16 (Cortex-A510, A710, Apple M2, Neoverse V1 and N2).
#[derive(Clone, Copy, Debug)]
pub struct NeonI8mm(Neon);

impl NeonI8mm {
    /// The token, if this CPU (and its operating system) has the instruction set.
    pub fn detect() -> Option<Self> {
        #[cfg(feature = "std")]
        let found = std::arch::is_aarch64_feature_detected!("i8mm")
            && std::arch::is_aarch64_feature_detected!("fp16");
        #[cfg(not(feature = "std"))]
        let found = cfg!(all(target_feature = "i8mm", target_feature = "fp16"));
        Neon::detect().filter(|_| found).map(Self)
    }
}

#[target_feature(enable = "neon,i8mm")]
fn run_enabled<K: DotKernel>(dot: NeonI8mm, kernel: K) -> K::Output {
    kernel.run(dot)
}

#[expect(unsafe_code, reason = "vector intrinsics")]
impl Dot for NeonI8mm {
    type Float = Neon;
    const TILE_ROWS: usize = 8;
    const SUMS_SATURATE: bool = false;
    const FAST_I16: bool = false;
    const PANEL_GROUP: usize = 8;

    #[inline(always)]
    fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves that the CPU has the features that `run_enabled` enables.
        unsafe { run_enabled(self, kernel) }
    }
    #[inline(always)]
    fn float(self) -> Neon {
        self.0
    }
    /// Not by `smmla`, which sums over rows and columns and not lane by lane: a peak measured with this is far below what
    /// the products can reach.
    #[inline(always)]
    fn dot_i8(self, sum: int32x4_t, left: [int32x4_t; 2], right: [int32x4_t; 2]) -> int32x4_t {
        self.0.dot_i8(sum, left, right)
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
        // SAFETY: `self` proves `smmla`; the caller vouches for the rows and the panel.
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

/// [`Dot::product_i8`]. By `asm!`, because the intrinsic is not stable; one instruction per block, so that the compiler
/// chooses the registers for every number of rows.
///
/// Sums lie as `smmla` has them: pairs of rows by pairs of columns, 16 registers of them. Two steps at a time, so that
/// rows are loaded in whole vectors and two of them are paired by one instruction per step: eight registers of weights,
/// two of rows. An odd last row is paired with itself.
///
/// # Safety
/// As [`Dot::product_i8`].
#[target_feature(enable = "neon,i8mm")]
#[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
unsafe fn product<const ROWS: usize>(
    left: *const u8,
    left_stride: usize,
    panel: PanelI8,
    start: [[int32x4_t; 2]; ROWS],
) -> [[int32x4_t; 2]; ROWS] {
    const PAIRS: usize = <NeonI8mm as Dot>::TILE_ROWS / 2;
    let pairs = ROWS.div_ceil(2);
    let second = |pair: usize| (2 * pair + 1).min(ROWS - 1);
    let mut sums = [[vdupq_n_s32(0); 4]; PAIRS];
    for pair in 0..pairs {
        let ([a, b], [c, d]) = (start[2 * pair], start[second(pair)]);
        sums[pair] = [first_halves(a, c), second_halves(a, c), first_halves(b, d), second_halves(b, d)];
    }
    for two_steps in 0..panel.steps / 2 {
        // SAFETY: the caller vouches for the panel's steps, which are even in number, and the rows.
        unsafe {
            let weights = panel.weights.add(two_steps * 16 * STEP);
            let weights: [int8x16_t; 8] = core::array::from_fn(|at| vld1q_s8(weights.add(16 * at)));
            let left = left.cast::<i32>().byte_add(two_steps * 2 * STEP);
            for pair in 0..pairs {
                let load = |row| vld1q_s32(left.byte_add(row * left_stride));
                let (upper, lower) = (load(2 * pair), load(second(pair)));
                let factors = [first_halves(upper, lower), second_halves(upper, lower)];
                for (step, factors) in factors.into_iter().enumerate() {
                    for (columns, sum) in sums[pair].iter_mut().enumerate() {
                        // This function's callers have `smmla`.
                        asm!(
                            "smmla {sum:v}.4s, {factors:v}.16b, {weights:v}.16b",
                            sum = inout(vreg) *sum,
                            factors = in(vreg) factors,
                            weights = in(vreg) weights[4 * step + columns],
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                }
            }
        }
    }
    let mut out = start;
    for pair in 0..pairs {
        let [a, b, c, d] = sums[pair];
        out[second(pair)] = [second_halves(a, b), second_halves(c, d)];
        out[2 * pair] = [first_halves(a, b), first_halves(c, d)];
    }
    out
}

/// The first 64 bits of both.
#[inline]
#[target_feature(enable = "neon")]
fn first_halves(x: int32x4_t, y: int32x4_t) -> int32x4_t {
    vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)))
}

/// The second 64 bits of both.
#[inline]
#[target_feature(enable = "neon")]
fn second_halves(x: int32x4_t, y: int32x4_t) -> int32x4_t {
    vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)))
}
