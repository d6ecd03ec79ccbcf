//! Zoom blur.

use super::{CHANNELS, Severity};

/// The mean of the picture and of ever larger ones.
pub(super) fn zoom(values: &[f32], size: (usize, usize), severity: Severity) -> Vec<f32> {
    let (layers, step) = severity.of([(12_u8, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)]);
    // Steps of NumPy's `arange`: their last bit can decide how many pixels are kept.
    let step = (1.0_f64 + step) - 1.0;
    let mut sum = values.to_vec();
    for layer in 0..layers {
        let larger = enlarged(values, size, CHANNELS, 1.0 + f64::from(layer) * step);
        sum.iter_mut().zip(larger).for_each(|(sum, value)| *sum += value);
    }
    sum.into_iter().map(|sum| sum / (f32::from(layers) + 1.0)).collect()
}

/// The middle of a picture, so enlarged that it fills it: by `factor`, between neighbours in proportion to their distance.
///
/// values: `[height, width, channels]`. The first and the last pixels of the middle stay first and last, and what becomes too large
/// by rounding is cut off at the right and the bottom.
pub(super) fn enlarged(
    values: &[f32],
    (width, height): (usize, usize),
    channels: usize,
    factor: f64,
) -> Vec<f32> {
    let (columns, rows) = (between(width, factor), between(height, factor));
    let row = width * channels;
    let mut out = Vec::with_capacity(values.len());
    for &(above, below, down) in &rows {
        let (above, below) = (&values[above * row..][..row], &values[below * row..][..row]);
        for &(left, right, across) in &columns {
            let mixed = |line: &[f32], channel: usize| {
                line[left * channels + channel] * (1.0 - across) + line[right * channels + channel] * across
            };
            out.extend(
                (0..channels)
                    .map(|channel| mixed(above, channel) * (1.0 - down) + mixed(below, channel) * down),
            );
        }
    }
    out
}

/// For every place, the pixels before and after it, and how far it is on the way.
fn between(length: usize, factor: f64) -> Vec<(usize, usize, f32)> {
    let kept = (length as f64 / factor).ceil() as usize;
    let first = (length - kept) / 2;
    let larger = (kept as f64 * factor).round_ties_even() as usize;
    let step = (kept - 1) as f64 / (larger - 1).max(1) as f64;
    let place = |position: usize| {
        let place = position as f64 * step;
        let before = (place as usize).min(kept - 1);
        (first + before, first + (before + 1).min(kept - 1), (place - before as f64) as f32)
    };
    (0..length).map(place).collect()
}
