//! Functions that the compiler turns into vector instructions, and products of small matrices.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, bail};

/// `e^x` to some 2 units in the last place; 0 below -87, infinity above 88.7.
///
/// `x = k ln 2 + r`, `|r| <= ln 2 / 2`, `e^r` by its Taylor polynomial of degree 6 in Horner's form.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// ln 2, split so that `k * LN2_HIGH` is exact for every k in question.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and taking away 1.5 * 2^23 rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.7);
    let k = clamped * std::f32::consts::LOG2_E + ROUND - ROUND;
    let r = clamped - k * LN2_HIGH - k * LN2_LOW;
    let mut sum = 1.0 / 720.0;
    for term in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + term;
    }
    let half = (k as i32) >> 1;
    let power = |exponent: i32| f32::from_bits(((exponent + 127) as u32) << 23);
    // In two steps, because 2^128 is no f32.
    let value = sum * power(half) * power(k as i32 - half);
    if x < -87.0 { 0.0 } else { value }
}

/// The normal distribution's cumulative function Φ and its density φ.
///
/// erf by Abramowitz and Stegun 7.1.26, absolute error at most 1.5e-7; its exponential is that of the density.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    const INVERSE_SQRT_TAU: f32 = 0.398_942_3;
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let gauss = exp(-z * z);
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut sum = 1.061_405_4;
    for term in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        sum = sum * t + term;
    }
    let tail = 0.5 * sum * t * gauss;
    (if x < 0.0 { tail } else { 1.0 - tail }, INVERSE_SQRT_TAU * gauss)
}

/// A matrix whose rows and columns lie anywhere in a storage.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    storage: &'a CpuStorage,
    start: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` rows of `cols` numbers from `start` on, each `row_stride` after the one before.
    pub(super) fn new(
        storage: &'a CpuStorage,
        start: usize,
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Self {
        Self { storage, start, rows, cols, row_stride, col_stride: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn layout(&self) -> Layout {
        Layout::new((self.rows, self.cols).into(), vec![self.row_stride, self.col_stride], self.start)
    }
}

/// `a · b`, `[a.rows, b.cols]`, row-major.
pub(super) fn product(a: Matrix<'_>, b: Matrix<'_>) -> Result<Vec<f32>> {
    match a.storage.matmul(b.storage, (1, a.rows, b.cols, a.cols), &a.layout(), &b.layout())? {
        CpuStorage::F32(numbers) => Ok(numbers),
        other => bail!("product: expected f32, got {:?}", other.dtype()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_follows_the_library() {
        for step in -9000..9000 {
            let x = step as f32 * 0.01;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            if x > 88.7 {
                assert!(got >= 3.3e38, "{x}: {got}");
            } else if x < -87.0 {
                assert_eq!(got, 0.0, "{x}");
            } else {
                assert!((got / want - 1.0).abs() < 4e-7, "{x}: {got}, {want}");
            }
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn products_take_any_strides() {
        let numbers: Vec<f32> = (0..40).map(|at| (at as f32 * 0.7).sin()).collect();
        // a: [3, 4] within rows of 5; b: [4, 2], stored transposed as [2, 4] within rows of 6.
        let storage = CpuStorage::F32(numbers.clone());
        let a = Matrix::new(&storage, 0, 3, 4, 5);
        let b = Matrix::new(&storage, 20, 2, 4, 6).transposed();
        for (at, got) in product(a, b).unwrap().iter().enumerate() {
            let (row, col) = (at / 2, at % 2);
            let want: f32 = (0..4).map(|k| numbers[row * 5 + k] * numbers[20 + col * 6 + k]).sum();
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
    }
}
