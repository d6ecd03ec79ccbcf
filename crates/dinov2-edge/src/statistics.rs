//! Order statistics of samples.

/// The value below which `share` (0..=1) of the sorted samples lie, linearly interpolated; 0 without samples.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// In rising order.
pub fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_by(f64::total_cmp);
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

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
