//! A perceptual hash: 64 bits that survive resizing and another encoding.

use std::f64::consts::PI;

use dinov2_io::Resampler;

use crate::image::Image;

/// Side of the picture that is transformed.
const SIDE_PX: usize = 32;
/// Frequencies that are kept in each direction: 8 x 8 bits.
const KEPT: usize = 8;

/// 64 bits that hardly change when an image is resized or encoded again: its lowest frequencies against their median.
///
/// The picture is resampled to 32x32 (bicubic, RGB), made grey (ITU-R BT.601, f64), transformed by an unnormalised DCT-II in both
/// directions; the 8x8 lowest frequencies, rows first, give a 1 where they lie above their median, most significant bit first.
/// This is "pHash" (C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010) with our
/// resampling. Mirrored and rotated images have other hashes.
pub fn perceptual_hash(image: &Image, resampler: &mut Resampler) -> u64 {
    let mut small = Vec::new();
    resampler.resize(&image.pixels, (image.width_px, image.height_px), (SIDE_PX, SIDE_PX), &mut small);
    let grey: Vec<f64> = small
        .as_chunks::<3>()
        .0
        .iter()
        .map(|rgb| 0.299 * f64::from(rgb[0]) + 0.587 * f64::from(rgb[1]) + 0.114 * f64::from(rgb[2]))
        .collect();
    let cosine = |frequency: usize, at: usize| {
        (PI * frequency as f64 * (2 * at + 1) as f64 / (2 * SIDE_PX) as f64).cos()
    };
    // Columns of the picture first: [KEPT, SIDE_PX], then rows: [KEPT, KEPT].
    let sum = |count: usize, value: &dyn Fn(usize) -> f64| (0..count).map(value).sum::<f64>();
    let mut halfway = [[0.0; SIDE_PX]; KEPT];
    for (frequency, row) in halfway.iter_mut().enumerate() {
        for (x, out) in row.iter_mut().enumerate() {
            *out = sum(SIDE_PX, &|y| grey[y * SIDE_PX + x] * cosine(frequency, y));
        }
    }
    let mut lowest = [0.0; KEPT * KEPT];
    for (index, out) in lowest.iter_mut().enumerate() {
        *out = sum(SIDE_PX, &|x| halfway[index / KEPT][x] * cosine(index % KEPT, x));
    }
    let mut sorted = lowest;
    sorted.sort_unstable_by(f64::total_cmp);
    let median = (sorted[KEPT * KEPT / 2 - 1] + sorted[KEPT * KEPT / 2]) / 2.0;
    lowest.iter().fold(0, |hash, &value| hash << 1 | u64::from(value > median))
}
