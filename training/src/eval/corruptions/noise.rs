//! Gaussian, shot and impulse noise.

use std::f32::consts::TAU;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Severity;

/// Normal noise, as strong everywhere.
pub(super) fn gaussian(values: &mut [f32], severity: Severity, random: &mut ChaCha8Rng) {
    add_normal(values, severity.of([0.08, 0.12, 0.18, 0.26, 0.38]), random);
}

/// `value + deviation * z`, z normal.
pub(super) fn add_normal(values: &mut [f32], deviation: f32, random: &mut ChaCha8Rng) {
    for pair in values.chunks_mut(2) {
        // Box and Muller: two normal numbers of two uniform ones, of which the first must not be zero.
        let radius = (-2.0 * (1.0 - random.random::<f32>()).ln()).sqrt() * deviation;
        let angle = TAU * random.random::<f32>();
        for (value, part) in pair.iter_mut().zip([angle.cos(), angle.sin()]) {
            *value += radius * part;
        }
    }
}

/// `poisson(value * photons) / photons`.
pub(super) fn shot(values: &mut [f32], severity: Severity, random: &mut ChaCha8Rng) {
    let photons = severity.of([60.0, 25.0, 12.0, 5.0, 3.0]);
    for value in values {
        *value = poisson(f64::from(*value) * photons, random) / photons as f32;
    }
}

/// Arrivals within a time of `mean` at rate 1: products of uniform numbers until they fall below `exp(-mean)` (Knuth). Means
/// stay below 60 here.
fn poisson(mean: f64, random: &mut ChaCha8Rng) -> f32 {
    let limit = (-mean).exp();
    let (mut arrivals, mut product) = (0, random.random::<f64>());
    while product > limit {
        arrivals += 1;
        product *= random.random::<f64>();
    }
    arrivals as f32
}

/// Salt or pepper, as often one as the other.
pub(super) fn impulse(values: &mut [f32], severity: Severity, random: &mut ChaCha8Rng) {
    let part = severity.of([0.03, 0.06, 0.09, 0.17, 0.27]);
    for value in values {
        let drawn = random.random::<f32>();
        if drawn < part {
            *value = if drawn < part / 2.0 { 0.0 } else { 1.0 };
        }
    }
}
