//! Snow.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::blur::{Trail, trailed};
use super::zoom::enlarged;
use super::{CHANNELS, Severity, noise};

/// Deviation of the flakes' brightness.
const DEVIATION: f32 = 0.3;
/// Shares of red, green and blue in grey (Rec. 601).
const GREY: [f32; CHANNELS] = [0.299, 0.587, 0.114];

/// Random numbers of snow.
pub(super) struct Flakes {
    /// `[height, width]`, normal.
    pub(super) normal: Vec<f32>,
    /// Direction to which they fall.
    pub(super) degrees: f64,
}

impl Flakes {
    pub(super) fn draw((width, height): (usize, usize), random: &mut ChaCha8Rng) -> Self {
        let mut normal = vec![0.0; width * height];
        noise::add_normal(&mut normal, 1.0, random);
        Self { normal, degrees: random.random_range(-135.0..-45.0) }
    }
}

/// A whitened picture behind flakes: bright noise, enlarged, trailing along a line, and once more turned by 180 degrees.
pub(super) fn snow(values: &mut [f32], size: (usize, usize), severity: Severity, flakes: &Flakes) {
    let (mean, factor, least, trail, kept) = severity.of([
        (0.1, 3.0, 0.5, (10, 4.0), 0.8),
        (0.2, 2.0, 0.5, (12, 4.0), 0.7),
        (0.55, 4.0, 0.9, (12, 8.0), 0.7),
        (0.55, 4.5, 0.85, (12, 8.0), 0.65),
        (0.55, 2.5, 0.85, (12, 12.0), 0.55),
    ]);
    let bright: Vec<f32> = flakes.normal.iter().map(|normal| mean + DEVIATION * normal).collect();
    let mut layer = enlarged(&bright, size, 1, factor);
    for value in &mut layer {
        *value = if *value < least { 0.0 } else { value.min(1.0) };
    }
    let trail = Trail { radius: trail.0, sigma: trail.1, degrees: flakes.degrees };
    let mut layer = trailed(&layer, size, 1, &trail);
    layer.iter_mut().for_each(|value| *value = (*value * 255.0).round_ties_even() / 255.0);
    let turned = layer.iter().rev();
    for (pixel, (flake, turned)) in values.chunks_exact_mut(CHANNELS).zip(layer.iter().zip(turned)) {
        let grey: f32 = pixel.iter().zip(GREY).map(|(value, share)| value * share).sum();
        for value in pixel {
            let white = value.max(grey * 1.5 + 0.5);
            *value = kept * *value + (1.0 - kept) * white + flake + turned;
        }
    }
}
