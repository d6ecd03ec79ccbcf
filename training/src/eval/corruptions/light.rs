//! Brightness, contrast and fog.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{CHANNELS, Severity};

/// HSV's value plus a constant; hue and saturation stay, so all three channels grow by the same factor.
pub(super) fn brightness(values: &mut [f32], severity: Severity) {
    let added = severity.of([0.1, 0.2, 0.3, 0.4, 0.5]);
    for pixel in values.chunks_exact_mut(CHANNELS) {
        let value = pixel.iter().copied().fold(0.0, f32::max);
        let brighter = (value + added).min(1.0);
        for channel in pixel {
            *channel = if value > 0.0 { *channel * brighter / value } else { brighter };
        }
    }
}

/// Differences to the channel's mean, times a factor.
pub(super) fn contrast(values: &mut [f32], severity: Severity) {
    let kept = severity.of([0.4, 0.3, 0.2, 0.1, 0.05]);
    let pixels = (values.len() / CHANNELS) as f64;
    for channel in 0..CHANNELS {
        let sum: f64 = values.iter().skip(channel).step_by(CHANNELS).map(|value| f64::from(*value)).sum();
        let mean = (sum / pixels) as f32;
        for value in values.iter_mut().skip(channel).step_by(CHANNELS) {
            *value = (*value - mean) * kept + mean;
        }
    }
}

/// Adds a cloud and scales the image so that its brightest point stays below white.
pub(super) fn fog(
    values: &mut [f32],
    (width, height): (usize, usize),
    severity: Severity,
    random: &mut ChaCha8Rng,
) {
    let (density, decay) = severity.of([(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)]);
    let brightest = values.iter().copied().fold(0.0, f32::max);
    let side = width.max(height).next_power_of_two();
    let cloud = cloud(side, decay, random);
    for (index, pixel) in values.chunks_exact_mut(CHANNELS).enumerate() {
        let cloud = cloud[index / width * side + index % width];
        for value in pixel {
            *value = (*value + density * cloud) * brightest / (brightest + density);
        }
    }
}

/// A fractal height map in 0..=1, `[side, side]`, side a power of two: midpoints of squares and of diamonds, displaced at random,
/// by a factor `decay^2` less at every halving (diamond-square, wrapped around).
fn cloud(side: usize, decay: f32, random: &mut ChaCha8Rng) -> Vec<f32> {
    let mut heights = vec![0.0; side * side];
    let (mut step, mut most) = (side, 1.0);
    while step >= 2 {
        let half = step / 2;
        let at = |heights: &[f32], y: usize, x: usize| heights[y % side * side + x % side];
        for y in (0..side).step_by(step) {
            for x in (0..side).step_by(step) {
                let corners = [(y, x), (y + step, x), (y, x + step), (y + step, x + step)];
                let sum: f32 = corners.iter().map(|(y, x)| at(&heights, *y, *x)).sum();
                heights[(y + half) * side + x + half] = sum / 4.0 + displacement(most, random);
            }
        }
        for y in (0..side).step_by(half) {
            let first = if (y / half).is_multiple_of(2) { half } else { 0 };
            for x in (first..side).step_by(step) {
                let around = [(y + side - half, x), (y + half, x), (y, x + side - half), (y, x + half)];
                let sum: f32 = around.iter().map(|(y, x)| at(&heights, *y, *x)).sum();
                heights[y * side + x] = sum / 4.0 + displacement(most, random);
            }
        }
        step = half;
        most /= decay * decay;
    }
    let lowest = heights.iter().copied().fold(f32::INFINITY, f32::min);
    let range = heights.iter().copied().fold(f32::NEG_INFINITY, f32::max) - lowest;
    // A single point has no range.
    heights.into_iter().map(|height| if range > 0.0 { (height - lowest) / range } else { 0.0 }).collect()
}

fn displacement(most: f32, random: &mut ChaCha8Rng) -> f32 {
    most * random.random_range(-1.0..1.0)
}
