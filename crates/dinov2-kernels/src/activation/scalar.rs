//! Definitions in double precision, against which the vector forms are tested.

/// The error function, by libm.
pub(crate) fn erf(x: f64) -> f64 {
    libm::erf(x)
}

/// `x * Phi(x)`.
pub(crate) fn gelu(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2)
}

/// `x * sigmoid(x)`.
pub(crate) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}
