//! Glass blur.

use super::smooth::{Smoothing, clamped};
use super::{CHANNELS, Severity};

/// Every pixel is replaced by a nearby one, between two smoothings.
///
/// ImageNet-C intends to swap two pixels, but its arrays copy one over the other, as does this code. `draw` returns a number
/// in `-most..most`.
pub(super) fn glass(
    pixels: &[u8],
    (width, height): (usize, usize),
    severity: Severity,
    mut draw: impl FnMut(i32) -> i32,
) -> Vec<u8> {
    let (sigma, most, rounds) =
        severity.of([(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)]);
    let smooth = |pixels: &[u8]| -> Vec<u8> {
        let values: Vec<f64> = pixels.iter().map(|value| f64::from(*value) / 255.0).collect();
        let smoothing = Smoothing { sigma: [sigma; 2], reach: 4.0, edge: clamped };
        let smooth = smoothing.of(&values, (width, height), CHANNELS);
        smooth.into_iter().map(|value| (value * 255.0) as u8).collect()
    };
    let mut pixels = smooth(pixels);
    // Backwards, over places from which no draw leaves the image.
    let margin = most as usize;
    let places = |length: usize| (margin + 1..(length + 1).saturating_sub(margin)).rev();
    for _ in 0..rounds {
        for y in places(height) {
            for x in places(width) {
                let (right, down) = (draw(most) as isize, draw(most) as isize);
                let from = y.strict_add_signed(down) * width + x.strict_add_signed(right);
                let to = y * width + x;
                pixels.copy_within(from * CHANNELS..(from + 1) * CHANNELS, to * CHANNELS);
            }
        }
    }
    smooth(&pixels)
}
