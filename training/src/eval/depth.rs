//! Depth: a linear map from patches to the logarithm of their distance.
//!
//! DINOv2 (section 7.4) trains a classifier of 256 bins with a scale-invariant logarithmic loss by gradient descent. Ridge regression
//! on the logarithm needs the same of features, has one solution, and is fitted from sums, whatever the number of images. Its figures
//! cannot be compared with the paper's, only with each other.

use std::ops::RangeInclusive;
use std::path::Path;

use dinov2_core::{ImageView, PatchGrid};
use dinov2_eval::{DepthMap, DepthScore, Measure, Unit, patch_targets};
use dinov2_heads::{RidgeProbe, RidgeSums, upsample};
use dinov2_io::{Frame, PairedImages, Size, read_still};

use super::depth_map::read_depth_map;
use super::images::{fitted, grid};
use super::pairs::{TRAINING, VALIDATION, check_size};
use super::segmentation::new_fit;
use super::skipped::Skipped;
use super::{EvalError, LoadedModel};
use crate::progress::task_bar;

/// Weight of the penalty on the weights of standardised features.
const L2: f64 = 1e-3;
/// Images with depth maps.
#[derive(Clone, Debug)]
pub struct Depth {
    /// Training images.
    pub train: PairedImages,
    /// Validation images.
    pub val: PairedImages,
    /// Metres per unit of a depth map: 0.001 for millimetres.
    pub unit_m: f64,
    /// Size, as in `dinov2-edge run`.
    pub size: Size,
}

/// A regression and the range of distances in its training data.
struct Fitted {
    probe: RidgeProbe,
    /// Metres; predictions are clamped to it.
    range: RangeInclusive<f64>,
}

impl Depth {
    fn visit(
        &self,
        images: &PairedImages,
        unit: &'static str,
        model: &mut LoadedModel,
        mut visit: impl FnMut(&mut LoadedModel, ImageView<'_>, PatchGrid, &DepthMap) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let patch_size = model.spec().patch_size;
        let (mut frame, mut fit) = (Frame::new(), new_fit(self.size, patch_size)?);
        let mut skipped = Skipped::new("depth", unit, images.len());
        let bar = task_bar("depth", model.name(), images.len(), unit);
        for (image, path) in images.iter() {
            bar.advance(1);
            let mut depth = match read_pair(image, path, &mut frame) {
                Ok(depth) => depth,
                Err(error) => {
                    bar.suspend(|| skipped.add(image, error))?;
                    continue;
                }
            };
            let grid = grid(&fit, &frame, image)?;
            if self.size == Size::Native {
                depth = depth.centre(grid.cols * patch_size, grid.rows * patch_size);
            }
            visit(model, fitted(&mut fit, &frame, image)?, grid, &depth)?;
        }
        bar.finish();
        skipped.finish(model)
    }

    fn fit(&self, model: &mut LoadedModel) -> Result<Fitted, EvalError> {
        let mut sums = RidgeSums::new(model.spec().dim);
        let (mut nearest, mut farthest) = (f64::INFINITY, 0.0f64);
        self.visit(&self.train, TRAINING, model, |model, image, grid, depth| {
            let (targets, weights) = patch_targets(depth, grid, self.unit_m);
            for &value in depth.pixels.iter().filter(|value| **value > 0) {
                let metres = f64::from(value) * self.unit_m;
                (nearest, farthest) = (nearest.min(metres), farthest.max(metres));
            }
            Ok(sums.add(model.features(image)?.patches(), &targets, &weights)?)
        })?;
        Ok(Fitted { probe: sums.solve(L2)?, range: nearest..=farthest })
    }

    /// Fits a regression for the model and measures it.
    ///
    /// # Errors
    /// No readable pair, none with a known distance, or an error of the engine.
    pub fn evaluate(&self, model: &mut LoadedModel) -> Result<Vec<Measure>, EvalError> {
        let fitted = self.fit(model)?;
        let (mut score, mut logarithms, mut pixels) = (DepthScore::default(), Vec::new(), Vec::new());
        self.visit(&self.val, VALIDATION, model, |model, image, grid, depth| {
            fitted.probe.predict_into(model.features(image)?.patches(), &mut logarithms)?;
            // Interpolation and a linear map commute, so the logarithm is interpolated instead of the features.
            upsample(&logarithms, grid, 1, (depth.width_px, depth.height_px), &mut pixels)?;
            score.add(&pixels, depth, self.unit_m, &fitted.range);
            Ok(())
        })?;
        if score.images == 0 {
            return Err(EvalError::input("depth", "validation images with known distances", "none"));
        }
        let (task, images) = (format!("depth {}", self.size), score.images as f64);
        Ok(vec![
            Measure::new(&task, "RMSE", Unit::Metres, score.rmse / images),
            Measure::new(&task, "relative error", Unit::Ratio, score.relative / images),
            Measure::new(&task, "within a factor of 1.25", Unit::Share, score.right / images),
        ])
    }

    /// The protocol, as a note for the table.
    pub fn note(&self) -> String {
        format!(
            "depth: ridge regression of log distance on patches of {} images, scored on {}; means over images, size {}",
            self.train.len(),
            self.val.len(),
            self.size
        )
    }
}

fn read_pair(image: &Path, path: &Path, frame: &mut Frame) -> Result<DepthMap, EvalError> {
    read_still(image, frame)?;
    let depth = read_depth_map(path)?;
    check_size("depth map", (depth.width_px, depth.height_px), frame, path)?;
    Ok(depth)
}
