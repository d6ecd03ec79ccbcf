//! The score of predicted depth, and what a regression on patches is fitted to.
//!
//! Data shape: a depth map is `[height_px, width_px]` of u16 in a unit of its own, 0 where no distance is known; a prediction is the
//! logarithm of metres per pixel.

use std::ops::RangeInclusive;

use dinov2_core::PatchGrid;

/// A prediction within this factor of the truth counts as right (the usual "delta 1").
const RIGHT_FACTOR: f64 = 1.25;

/// The distance of every pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepthMap {
    /// `[height_px, width_px]`
    pub pixels: Vec<u16>,
    /// Width.
    pub width_px: usize,
    /// Height.
    pub height_px: usize,
}

impl DepthMap {
    /// The centred part of this size; the odd pixel goes to the right and the bottom, as in `dinov2_io::Size::Native`.
    pub fn centre(&self, width_px: usize, height_px: usize) -> Self {
        let (left, top) = ((self.width_px - width_px) / 2, (self.height_px - height_px) / 2);
        let lines = self.pixels.chunks_exact(self.width_px).skip(top).take(height_px);
        let pixels = lines.flat_map(|line| &line[left..left + width_px]).copied().collect();
        Self { pixels, width_px, height_px }
    }
}

/// Sums of scores over images.
#[derive(Clone, Debug, Default)]
pub struct DepthScore {
    /// Images with a known distance.
    pub images: usize,
    /// Sum of root mean square errors in metres.
    pub rmse: f64,
    /// Sum of mean relative errors.
    pub relative: f64,
    /// Sum of shares of pixels within a factor of 1.25.
    pub right: f64,
}

impl DepthScore {
    /// Adds an image. `logarithms`: of the predicted metres, per pixel. Pixels without a known distance are ignored, and so are images
    /// without any.
    pub fn add(&mut self, logarithms: &[f32], depth: &DepthMap, unit_m: f64, range: &RangeInclusive<f64>) {
        let (mut squares, mut relative, mut right, mut count) = (0.0, 0.0, 0_usize, 0_usize);
        for (logarithm, &value) in logarithms.iter().zip(&depth.pixels).filter(|(_, value)| **value > 0) {
            let truth = f64::from(value) * unit_m;
            let found = f64::from(*logarithm).exp().clamp(*range.start(), *range.end());
            squares += (found - truth).powi(2);
            relative += (found - truth).abs() / truth;
            right += usize::from((found / truth).max(truth / found) < RIGHT_FACTOR);
            count += 1;
        }
        if count > 0 {
            let pixels = count as f64;
            self.images += 1;
            self.rmse += (squares / pixels).sqrt();
            self.relative += relative / pixels;
            self.right += right as f64 / pixels;
        }
    }
}

/// Mean logarithm of the metres in every patch, and the share of its pixels that have one: fitting these by weighted squares is
/// fitting all pixels. A pixel belongs to the patch that its centre falls into.
pub fn patch_targets(depth: &DepthMap, grid: PatchGrid, unit_m: f64) -> (Vec<f32>, Vec<f32>) {
    let cell = |position: usize, length: usize, cells: usize| (2 * position + 1) * cells / (2 * length);
    let (mut sums, mut known, mut all) =
        (vec![0.0f64; grid.len()], vec![0_u32; grid.len()], vec![0_u32; grid.len()]);
    for (y, line) in depth.pixels.chunks_exact(depth.width_px).enumerate() {
        let row = cell(y, depth.height_px, grid.rows);
        for (x, &value) in line.iter().enumerate() {
            let patch = row * grid.cols + cell(x, depth.width_px, grid.cols);
            all[patch] += 1;
            if value > 0 {
                sums[patch] += (f64::from(value) * unit_m).ln();
                known[patch] += 1;
            }
        }
    }
    let targets = sums.iter().zip(&known).map(|(sum, known)| (sum / f64::from(*known).max(1.0)) as f32);
    let weights = known.iter().zip(&all).map(|(known, all)| *known as f32 / (*all).max(1) as f32);
    (targets.collect(), weights.collect())
}
