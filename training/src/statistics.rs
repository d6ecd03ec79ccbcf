//! Numbers about samples.

/// Cosine of the angle between two vectors; 1 if both are zeros, 0 if one is.
pub(crate) fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    match (dot(left, left), dot(right, right)) {
        (0.0, 0.0) => 1.0,
        (0.0, _) | (_, 0.0) => 0.0,
        (left_squared, right_squared) => dot(left, right) / (left_squared.sqrt() * right_squared.sqrt()),
    }
}

/// The value below which `share` (0..=1) of the sorted samples lie, linearly interpolated; NaN without samples.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// NaN without samples.
pub(crate) fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    quantile(&samples, 0.5)
}
