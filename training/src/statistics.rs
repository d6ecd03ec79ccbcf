//! Means and medians of samples. Cosines and quantiles are those of [`dinov2_core::statistics`].

use dinov2_core::statistics::{quantile, sorted};

/// NaN without samples.
pub(crate) fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

/// Of an even number of samples the mean of the middle two; 0 without samples.
pub(crate) fn median(samples: Vec<f64>) -> f64 {
    quantile(&sorted(samples), 0.5)
}
