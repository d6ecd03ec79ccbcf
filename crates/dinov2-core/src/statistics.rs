//! Quantiles of samples and the cosine of two features.
//!
//! ```
//! use dinov2_core::statistics::{cosine, quantile, sorted};
//!
//! let latencies_ms = sorted(vec![21.0, 20.0, 40.0]);
//! assert_eq!(quantile(&latencies_ms, 0.5), 21.0);
//! assert_eq!(quantile(&latencies_ms, 0.75), 30.5); // halfway between 21 and 40
//! assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
//! ```

use alloc::vec::Vec;

/// The quantile `share` (0..=1) of sorted samples, linearly interpolated as in numpy; 0 without samples.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let below = place as usize; // rounds down
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// Samples in ascending order.
pub fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_by(f64::total_cmp);
    samples
}

/// Cosine of the angle between two vectors of equal length; 1 if both are zero, 0 if one is zero.
pub fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    match (dot(x, x), dot(y, y)) {
        (0.0, 0.0) => 1.0,
        (0.0, _) | (_, 0.0) => 0.0,
        (xx, yy) => dot(x, y) / (libm::sqrt(xx) * libm::sqrt(yy)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn quantiles_as_numpy_computes_them() {
        // numpy.quantile([1, 2, 4, 8], [0, .05, .5, .95, 1]).
        let samples = sorted(vec![8.0, 1.0, 4.0, 2.0]);
        for (share, want) in [(0.0, 1.0), (0.05, 1.15), (0.5, 3.0), (0.95, 7.4), (1.0, 8.0)] {
            assert!((quantile(&samples, share) - want).abs() < 1e-12, "{share}");
        }
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
