//! Element-wise functions: exponential, error function, GELU, SiLU.
//!
//! Vector forms serve as building blocks of other kernels' epilogues; `scalar.rs` defines them.

#[cfg(test)]
pub(crate) mod scalar;

use crate::simd::Simd;

/// Coefficients of a minimax polynomial for `2^f`, |f| <= 1/2, constant term first and exactly 1; relative error 9e-8
/// (least squares with iterated weights, in double precision).
#[expect(clippy::approx_constant, reason = "the fit's own value, a little below ln 2")]
const EXP2: [f32; 6] = [1.0, 0.693_147, 0.240_222_42, 0.055_507_336, 0.009_671_513, 0.001_326_472_7];

/// As [`EXP2`] of degree 3, relative error 7.5e-5 (minimax by linear programming).
const EXP2_COARSE: [f32; 4] = [0.999_928_06, 0.693_260_97, 0.242_611_13, 0.055_171_67];

/// 1.5 * 2^23 + 127. Adding it to |x| < 2^21 leaves no fraction bits, so the addition rounds `x` to the nearest integer,
/// and the low bits of the sum are that integer plus the exponent bias.
const ROUND_AND_BIAS: f32 = 12_583_039.0;

/// `erf(x) / x` as a ratio of two polynomials in `x^2` for |x| <= 3.9375, where erf rounds to 1; relative error 2e-8
/// before rounding (rational least squares with iterated weights against 40-digit values).
const ERF_NUMERATOR: [f32; 6] = [
    core::f32::consts::FRAC_2_SQRT_PI,
    0.191_055_33,
    0.052_820_01,
    0.003_789_608_6,
    0.000_284_742_8,
    2.036_003_3e-6,
];
/// Denominator of [`ERF_NUMERATOR`].
const ERF_DENOMINATOR: [f32; 6] =
    [1.0, 0.502_651_1, 0.114_364_125, 0.015_017_639, 0.001_167_100_5, 3.793_900_4e-5];
/// Here the ratio lies above 1 whatever the rounding, so that cutting it off at 1 makes all larger arguments exact.
const ERF_ONE: f32 = 4.15;

#[inline(always)]
fn polynomial<S: Simd>(simd: S, coefficients: &[f32], x: S::V) -> S::V {
    let (highest, lower) = (coefficients[coefficients.len() - 1], &coefficients[..coefficients.len() - 1]);
    let mut value = simd.splat(highest);
    for &coefficient in lower.iter().rev() {
        value = simd.mul_add(value, x, simd.splat(coefficient));
    }
    value
}

/// `2^x` for x <= 127; arguments are cut off at -126, so the result is never 0 or subnormal.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(simd: S, x: S::V) -> S::V {
    let x = simd.max(x, simd.splat(-126.0));
    let biased = simd.add(x, simd.splat(ROUND_AND_BIAS));
    let whole = simd.sub(biased, simd.splat(ROUND_AND_BIAS));
    simd.mul(polynomial(simd, &EXP2, simd.sub(x, whole)), simd.exp2_of_low_bits(biased))
}

/// `2^x` for x <= 127 to 13 bits; arguments below -3 count as -3, for callers that treat results up to 1/4 as 0.
#[inline(always)]
pub(crate) fn exp2_coarse<S: Simd>(simd: S, x: S::V) -> S::V {
    let x = simd.max(x, simd.splat(-3.0));
    let biased = simd.add(x, simd.splat(ROUND_AND_BIAS));
    let whole = simd.sub(biased, simd.splat(ROUND_AND_BIAS));
    simd.mul(polynomial(simd, &EXP2_COARSE, simd.sub(x, whole)), simd.exp2_of_low_bits(biased))
}

/// `e^x` with the argument reduced in two steps (Cody and Waite), so that large |x| stays accurate; arguments are cut
/// off at -87 and 88.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    /// ln 2 rounded to 15 bits, so that `whole * LN2_HIGH` is exact, and the rest.
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    let x = simd.min(simd.max(x, simd.splat(-87.0)), simd.splat(88.0));
    let biased = simd.mul_add(x, simd.splat(core::f32::consts::LOG2_E), simd.splat(ROUND_AND_BIAS));
    let whole = simd.sub(biased, simd.splat(ROUND_AND_BIAS));
    let rest = simd.mul_add(whole, simd.splat(-LN2_HIGH), x);
    let rest = simd.mul_add(whole, simd.splat(-LN2_LOW), rest);
    let part = polynomial(simd, &EXP2, simd.mul(rest, simd.splat(core::f32::consts::LOG2_E)));
    simd.mul(part, simd.exp2_of_low_bits(biased))
}

/// The error function.
#[inline(always)]
pub(crate) fn erf<S: Simd>(simd: S, x: S::V) -> S::V {
    let x = simd.min(simd.max(x, simd.splat(-ERF_ONE)), simd.splat(ERF_ONE));
    let square = simd.mul(x, x);
    let numerator = simd.mul(x, polynomial(simd, &ERF_NUMERATOR, square));
    let ratio = simd.div(numerator, polynomial(simd, &ERF_DENOMINATOR, square));
    simd.min(simd.max(ratio, simd.splat(-1.0)), simd.splat(1.0))
}

/// `x / 2 * (1 + erf(x / sqrt 2))` (Hendrycks and Gimpel 2016, the exact form).
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::V) -> S::V {
    let half = simd.mul(x, simd.splat(0.5));
    let erf = erf(simd, simd.mul(x, simd.splat(core::f32::consts::FRAC_1_SQRT_2)));
    simd.mul_add(half, erf, half)
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(simd: S, x: S::V) -> S::V {
    let one = simd.splat(1.0);
    let exp = exp(simd, simd.sub(simd.splat(0.0), x));
    simd.div(x, simd.add(one, exp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Kernel, MAX_LANES, isas_under_test};

    enum Function {
        Exp2,
        Exp,
        Erf,
        Gelu,
        Silu,
    }

    struct Apply(Function, f32);

    impl Kernel for Apply {
        type Output = f32;

        #[inline(always)]
        #[expect(unsafe_code, reason = "vector store")]
        fn run<S: Simd>(self, simd: S) -> f32 {
            let x = simd.splat(self.1);
            let y = match self.0 {
                Function::Exp2 => exp2(simd, x),
                Function::Exp => exp(simd, x),
                Function::Erf => erf(simd, x),
                Function::Gelu => gelu(simd, x),
                Function::Silu => silu(simd, x),
            };
            let mut lanes = [0.0f32; MAX_LANES];
            // SAFETY: MAX_LANES is at least LANES.
            unsafe { simd.store(lanes.as_mut_ptr(), y) };
            lanes[0]
        }
    }

    /// Every how many ten-thousandths are tried: an emulated CPU would take minutes for all of them.
    const STRIDE: usize = if cfg!(emulated) { 41 } else { 1 };

    #[test]
    fn functions_follow_libm() {
        for isa in isas_under_test() {
            for step in (-200_000..=200_000).step_by(STRIDE) {
                let x = step as f32 * 1e-4;
                let wide = f64::from(x);
                let check = |function, want: f64, relative: f64, absolute: f64| {
                    let got = f64::from(isa.run(Apply(function, x)));
                    let error = (got - want).abs();
                    assert!(error <= want.abs() * relative + absolute, "{} x {x}: {got} {want}", isa.name());
                };
                check(Function::Exp2, wide.exp2(), 3e-7, 0.0);
                check(Function::Exp, wide.exp(), 4e-7, 0.0);
                check(Function::Erf, scalar::erf(wide), 5e-7, 0.0);
                check(Function::Gelu, scalar::gelu(wide), 5e-7, 3e-7 * wide.abs());
                check(Function::Silu, scalar::silu(wide), 6e-7, 0.0);
            }
        }
    }

    #[test]
    fn extremes_are_finite() {
        for isa in isas_under_test() {
            for x in [f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30] {
                let y = isa.run(Apply(Function::Exp, x));
                assert!(y.is_finite() && y > 0.0 && (y > 1e37) == (x > 0.0), "{} {x} {y}", isa.name());
                if x < 0.0 {
                    let y = isa.run(Apply(Function::Exp2, x));
                    assert!(y > 0.0 && y < 2e-38, "{} {x} {y}", isa.name());
                }
                assert_eq!(isa.run(Apply(Function::Erf, x)), x.signum(), "{}", isa.name());
            }
            assert_eq!(isa.run(Apply(Function::Gelu, 1e30)), 1e30);
            assert_eq!(isa.run(Apply(Function::Gelu, -1e30)), 0.0);
        }
    }
}
