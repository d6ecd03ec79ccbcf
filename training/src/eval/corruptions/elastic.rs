//! Elastic transform.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::smooth::{Smoothing, reflected};
use super::{CHANNELS, Severity};

/// Deviation of the curve that smooths shifts, as a share of a side.
const SIGMA: f64 = 0.01;
/// Largest shift before it is smoothed and amplified, as a share of the height.
const MOST: f64 = 0.005;

/// Random shifts of an elastic transform, in -1..1 each.
pub(super) struct Shifts {
    /// `[height, width]`
    pub(super) right: Vec<f64>,
    /// `[height, width]`
    pub(super) down: Vec<f64>,
}

impl Shifts {
    pub(super) fn draw((width, height): (usize, usize), random: &mut ChaCha8Rng) -> Self {
        let mut draw = || (0..width * height).map(|_| random.random_range(-1.0..1.0)).collect();
        Self { right: draw(), down: draw() }
    }
}

/// Every pixel is replaced by one at a small distance, which changes smoothly from pixel to pixel.
pub(super) fn elastic(
    values: &[f32],
    (width, height): (usize, usize),
    severity: Severity,
    shifts: &Shifts,
) -> Vec<f32> {
    let amplified = severity.of([12.5, 16.25, 21.25, 25.0, 30.0]) * MOST * height as f64;
    let sigma = [height as f64 * SIGMA, width as f64 * SIGMA];
    let smoothing = Smoothing { sigma, reach: 3.0, edge: reflected };
    let [right, down] = [&shifts.right, &shifts.down].map(|shifts| smoothing.of(shifts, (width, height), 1));
    let mut out = Vec::with_capacity(values.len());
    for (index, (right, down)) in right.iter().zip(&down).enumerate() {
        let (left, after, across) = around(index % width, right * amplified, width);
        let (above, below, downward) = around(index / width, down * amplified, height);
        let pixel = |row: usize, column: usize| &values[(row * width + column) * CHANNELS..][..CHANNELS];
        let upper = pixel(above, left).iter().zip(pixel(above, after));
        let lower = pixel(below, left).iter().zip(pixel(below, after));
        out.extend(upper.zip(lower).map(|(upper, lower)| {
            let mixed = |(left, right): (&f32, &f32)| left * (1.0 - across) + right * across;
            mixed(upper) * (1.0 - downward) + mixed(lower) * downward
        }));
    }
    out
}

/// The pixels before and after a shifted position, and how far it is on the way.
fn around(position: usize, shift: f64, length: usize) -> (usize, usize, f32) {
    let whole = shift.floor();
    let before = whole as isize;
    let part = (shift - whole) as f32;
    (reflected(position, before, length), reflected(position, before + 1, length), part)
}
