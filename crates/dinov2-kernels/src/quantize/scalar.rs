//! The definition, in single precision throughout, so that every variant is equal to it bit for bit.

use alloc::vec::Vec;

/// The quantized values of a row, its scale and its zero point.
pub(crate) fn quantize_row(x: &[f32]) -> (Vec<u8>, f32, i32) {
    let low = x.iter().fold(0.0f32, |low, &x| low.min(x));
    let high = x.iter().fold(0.0f32, |high, &x| high.max(x));
    let scale = (high - low) / 255.0;
    if !(scale >= f32::MIN_POSITIVE && scale.is_finite()) {
        return (x.iter().map(|_| 0).collect(), 0.0, 0);
    }
    let (inverse, zero) = (1.0 / scale, (-low / scale).round_ties_even());
    let quantized = x.iter().map(|x| ((x * inverse).round_ties_even() + zero).clamp(0.0, 255.0) as u8);
    (quantized.collect(), scale, zero as i32)
}
