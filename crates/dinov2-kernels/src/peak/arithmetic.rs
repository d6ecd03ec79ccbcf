//! The loops in registers. Each accumulator depends only on itself, and there are as many as a GEMM tile has, which
//! hides the latency of the instructions.

use core::hint::black_box;

use super::Arithmetic;
use crate::Isa;
use crate::gemm_f32::tile::{Rows, for_rows};
use crate::simd::dot::{Dot, DotKernel, DotRows, STEP, Sums, for_dot_rows};
use crate::simd::half::{Half, HalfKernel, HalfRowsKernel, for_half_rows};
use crate::simd::{Kernel, Simd};

/// Turns of the loop in one task: 0.1 to some milliseconds, so that starting a step weighs nothing.
const TURNS: u64 = 100_000;

/// Operations of one call of [`run_task`].
pub(super) fn task_operations(isa: Isa, arithmetic: Arithmetic) -> u64 {
    // A panel is as wide as a tile.
    let sums = isa.panel_cols()
        * match arithmetic {
            Arithmetic::F32 => isa.tile_rows(),
            Arithmetic::Half => isa.half_tile_rows(),
            Arithmetic::Int8 => isa.dot_tile_rows() - 1,
            Arithmetic::Int16 => isa.dot_tile_rows(),
        };
    let products = match arithmetic {
        Arithmetic::F32 => 1,
        Arithmetic::Half => isa.run_half(Products),
        Arithmetic::Int8 => STEP,
        Arithmetic::Int16 => 2,
    };
    2 * TURNS * (sums * products) as u64
}

/// One task of the loop.
pub(super) fn run_task(isa: Isa, arithmetic: Arithmetic) {
    match arithmetic {
        Arithmetic::F32 => isa.run(F32Loop),
        Arithmetic::Half => isa.run_half(HalfLoop),
        Arithmetic::Int8 => isa.run_dot(Int8Loop),
        Arithmetic::Int16 => isa.run_dot(Int16Loop),
    }
}

/// `sum = sum * 0.5 + 0.5`: stays at 1, far from denormal numbers.
struct F32Loop;

impl Kernel for F32Loop {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for_rows(simd, S::TILE_ROWS, self);
    }
}

impl Rows for F32Loop {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(self, simd: S) {
        let (factor, term) = (simd.splat(black_box(0.5)), simd.splat(black_box(0.5)));
        // Each opaque for itself: equal accumulators would be computed once.
        let mut sums = [[simd.splat(0.0); 2]; ROWS];
        for sum in sums.iter_mut().flatten() {
            *sum = simd.splat(black_box(1.0));
        }
        for _ in 0..TURNS {
            for pair in &mut sums {
                for sum in pair {
                    *sum = simd.mul_add(*sum, factor, term);
                }
            }
        }
        black_box(sums);
    }
}

struct Products;

impl HalfKernel for Products {
    type Output = usize;

    fn run<H: Half>(self, _half: H) -> usize {
        H::PRODUCTS
    }
}

/// `sum += factor · weight`, too small to change a sum of 1 in bf16, 0.004 at a time in f16.
struct HalfLoop;

impl HalfKernel for HalfLoop {
    type Output = ();

    #[inline(always)]
    fn run<H: Half>(self, half: H) {
        for_half_rows(half, H::TILE_ROWS, self);
    }
}

impl HalfRowsKernel for HalfLoop {
    #[inline(always)]
    fn run<H: Half, const ROWS: usize>(self, half: H) {
        let simd = half.float();
        // 2^-39 in each half as bf16, 2^-4 as f16.
        let factor = simd.splat(f32::from_bits(black_box(0x2c00_2c00)));
        let weight = simd.splat(f32::from_bits(black_box(0x2c00_2c00)));
        let mut sums = [[simd.splat(0.0); 2]; ROWS];
        for sum in sums.iter_mut().flatten() {
            *sum = simd.splat(black_box(1.0));
        }
        for _ in 0..TURNS {
            for pair in &mut sums {
                for sum in pair {
                    *sum = half.step(*sum, factor, weight);
                }
            }
        }
        black_box(sums);
    }
}

/// `sum += sum · weights`, the sum taken as bytes: were the factors constant, the products could leave the loop.
struct Int8Loop;

impl DotKernel for Int8Loop {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, dot: D) {
        // Factors are in memory in a GEMM, in registers here: a row less leaves room for them and for products.
        for_dot_rows(dot, D::TILE_ROWS - 1, self);
    }
}

impl DotRows for Int8Loop {
    #[inline(always)]
    fn run<D: Dot, const ROWS: usize>(self, dot: D) {
        let simd = dot.float();
        let weights = [simd.splat_i32(black_box(0x0102_0304)), simd.splat_i32(black_box(0x0403_0201))];
        let mut sums = start::<D, ROWS>(dot);
        for _ in 0..TURNS {
            for pair in &mut sums {
                for sum in pair {
                    *sum = dot.dot_i8(*sum, [*sum; 2], weights);
                }
            }
        }
        black_box(sums);
    }
}

/// `sum += sum · weights`, the sum taken as pairs of i16.
struct Int16Loop;

impl DotKernel for Int16Loop {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, dot: D) {
        for_dot_rows(dot, D::TILE_ROWS, self);
    }
}

impl DotRows for Int16Loop {
    #[inline(always)]
    fn run<D: Dot, const ROWS: usize>(self, dot: D) {
        let weights = dot.float().splat_i32(black_box(0x0003_0005));
        let mut sums = start::<D, ROWS>(dot);
        for _ in 0..TURNS {
            for pair in &mut sums {
                for sum in pair {
                    *sum = dot.dot_i16(*sum, *sum, weights);
                }
            }
        }
        black_box(sums);
    }
}

#[inline(always)]
fn start<D: Dot, const ROWS: usize>(dot: D) -> Sums<D, ROWS> {
    // Opaque one by one, as above.
    let mut sums = [[dot.float().splat_i32(0); 2]; ROWS];
    for sum in sums.iter_mut().flatten() {
        *sum = dot.float().splat_i32(black_box(1));
    }
    sums
}
