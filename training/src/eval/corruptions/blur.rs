//! Defocus and motion blur.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::smooth::clamped;
use super::{CHANNELS, Severity};

/// Least reach of the disk's kernel, which holds smaller disks with room around.
const LEAST_REACH: usize = 8;
/// Largest angle of motion to the horizontal, in degrees.
const MOST_DEGREES: f64 = 45.0;

/// Every value becomes the mean over a disk whose edge is smoothed.
pub(super) fn defocus(values: &[f32], (width, height): (usize, usize), severity: Severity) -> Vec<f32> {
    let (radius, smoothing) = severity.of([(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)]);
    let (kernel, reach) = disk(radius, smoothing);
    let side = 2 * reach + 1;
    let taps: Vec<(usize, usize, f32)> = (0..side * side)
        .filter(|index| kernel[*index] != 0.0)
        .map(|index| (index / side, index % side, kernel[index]))
        .collect();
    let columns: Vec<usize> = (0..width + 2 * reach).map(|x| mirrored(x, reach, width)).collect();
    let rows: Vec<usize> = (0..height + 2 * reach).map(|y| mirrored(y, reach, height)).collect();
    let mut out = vec![0.0; values.len()];
    for (y, line) in out.chunks_exact_mut(width * CHANNELS).enumerate() {
        for &(down, right, weight) in &taps {
            let source = &values[rows[y + down] * width * CHANNELS..][..width * CHANNELS];
            for (x, pixel) in line.chunks_exact_mut(CHANNELS).enumerate() {
                let from = &source[columns[x + right] * CHANNELS..][..CHANNELS];
                pixel.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
    out
}

/// Where `position`, counted from `reach` before the first of `length` pixels, lies: mirrored at the edge pixels, which are not
/// repeated.
fn mirrored(position: usize, reach: usize, length: usize) -> usize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length - 1);
    let place = (position as isize - reach as isize).rem_euclid(period as isize) as usize;
    place.min(period - place)
}

/// A disk of sum 1, smoothed by a small normal kernel, `[2 * reach + 1, 2 * reach + 1]`, and its reach.
fn disk(radius: usize, smoothing: f64) -> (Vec<f32>, usize) {
    let reach = radius.max(LEAST_REACH);
    let (side, half) = (2 * reach + 1, if radius <= LEAST_REACH { 1 } else { 2 });
    let inside = |y: usize, x: usize| y.abs_diff(reach).pow(2) + x.abs_diff(reach).pow(2) <= radius * radius;
    let area = (0..side * side).filter(|index| inside(index / side, index % side)).count() as f64;
    let normal: Vec<f64> = (0..=2 * half)
        .map(|place: usize| (-(place.abs_diff(half).pow(2) as f64) / (2.0 * smoothing * smoothing)).exp())
        .collect();
    let sum: f64 = normal.iter().sum();
    let smooth = |index: usize| {
        let (y, x) = (index / side, index % side);
        let mut value = 0.0;
        for (down, row) in normal.iter().enumerate() {
            for (right, column) in normal.iter().enumerate() {
                if inside(mirrored(y + down, half, side), mirrored(x + right, half, side)) {
                    value += row * column;
                }
            }
        }
        (value / (sum * sum) / area) as f32
    };
    ((0..side * side).map(smooth).collect(), reach)
}

/// Direction of the motion, in degrees.
pub(super) fn angle(random: &mut ChaCha8Rng) -> f64 {
    random.random_range(-MOST_DEGREES..MOST_DEGREES)
}

/// Every pixel trails along a line. Edge pixels are repeated.
pub(super) fn motion(pixels: &[u8], size: (usize, usize), severity: Severity, degrees: f64) -> Vec<u8> {
    let (radius, sigma) = severity.of([(10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)]);
    let values: Vec<f32> = pixels.iter().copied().map(f32::from).collect();
    let blurred = trailed(&values, size, CHANNELS, &Trail { radius, sigma, degrees });
    blurred.into_iter().map(|value| value as u8).collect()
}

/// A line of `2 * radius + 1` pixels with half a normal curve for weights.
pub(super) struct Trail {
    pub(super) radius: usize,
    pub(super) sigma: f64,
    pub(super) degrees: f64,
}

/// values: `[height, width, channels]`.
pub(super) fn trailed(
    values: &[f32],
    (width, height): (usize, usize),
    channels: usize,
    trail: &Trail,
) -> Vec<f32> {
    let length = 2 * trail.radius + 1;
    let weight = |place: usize| (-((place * place) as f64) / (2.0 * trail.sigma * trail.sigma)).exp();
    let sum: f64 = (0..length).map(weight).sum();
    let (sine, cosine) = trail.degrees.to_radians().sin_cos();
    let mut out = vec![0.0; values.len()];
    for place in 0..length {
        let along = |part: f64| (place as f64 * part - 0.5).ceil() as isize;
        let (down, right) = (along(sine), along(cosine));
        if down.unsigned_abs() >= height || right.unsigned_abs() >= width {
            break;
        }
        let share = (weight(place) / sum) as f32;
        for (y, line) in out.chunks_exact_mut(width * channels).enumerate() {
            let source = &values[clamped(y, down, height) * width * channels..][..width * channels];
            for (x, pixel) in line.chunks_exact_mut(channels).enumerate() {
                let from = &source[clamped(x, right, width) * channels..][..channels];
                pixel.iter_mut().zip(from).for_each(|(sum, value)| *sum += share * value);
            }
        }
    }
    out
}
