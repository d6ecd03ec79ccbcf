//! Segmentation: a linear classifier of patches, scored on label maps. The protocol is that of `dinov2-edge eval segmentation`.

use std::path::Path;

use dinov2_core::{ImageView, PatchGrid};
use dinov2_eval::{Measure, Unit};
use dinov2_heads::{Confusion, LabelMap, LinearProbe, ProbeConfig};
use dinov2_io::{Fit, Frame, Labels, PairedImages, Size};

use super::images::{fitted, grid};
use super::pairs::{TRAINING, VALIDATION, read_pair};
use super::skipped::Skipped;
use super::{EvalError, LoadedModel};
use crate::progress::{note, task_bar};

/// Most feature values of the training set: 8 GiB of f32.
const MAX_TRAINING_VALUES: usize = 1 << 31;

/// Images with label maps.
#[derive(Clone, Debug)]
pub struct Segmentation {
    /// Training images.
    pub train: PairedImages,
    /// Validation images.
    pub val: PairedImages,
    /// Number of classes.
    pub classes: usize,
    /// Label of ignored pixels.
    pub ignore: u8,
    /// Size, as in `dinov2-edge run`.
    pub size: Size,
}

impl Segmentation {
    /// Finds the number of classes (one more than the largest label of the training set) and checks every label map, so that a
    /// wrong one is reported before minutes of work. Unreadable pairs are reported and left out.
    ///
    /// # Errors
    /// No readable pair, a label map of another size than its image or with a class that the training set lacks,
    /// or nothing but ignored pixels.
    pub fn new(train: PairedImages, val: PairedImages, ignore: u8, size: Size) -> Result<Self, EvalError> {
        let mut largest = None;
        visit_labels(&train, TRAINING, |labels, _| {
            largest = largest.max(labels.pixels.into_iter().filter(|label| *label != ignore).max());
            Ok(())
        })?;
        let Some(largest) = largest else {
            let got = format!("only those of the ignored class {ignore}");
            return Err(EvalError::input("segmentation", "labelled training pixels", got));
        };
        if largest == 0 {
            let got = format!("label 0 alone besides the ignored {ignore}; --ignore names another one");
            return Err(EvalError::input("segmentation", "training pixels of two classes at least", got));
        }
        let task = Self { train, val, classes: usize::from(largest) + 1, ignore, size };
        visit_labels(&task.val, VALIDATION, |labels, path| task.map(&labels, path).map(|_| ()))?;
        Ok(task)
    }

    fn map<'a>(&self, labels: &'a Labels, path: &Path) -> Result<LabelMap<'a>, EvalError> {
        LabelMap::new(&labels.pixels, (labels.width_px, labels.height_px), self.classes, self.ignore)
            .map_err(|source| EvalError::Label { source, path: path.display().to_string() })
    }

    /// Calls `visit` with every fitted image, its grid and its labels (the part of them that the grid covers).
    fn visit(
        &self,
        images: &PairedImages,
        unit: &'static str,
        model: &mut LoadedModel,
        mut visit: impl FnMut(&mut LoadedModel, ImageView<'_>, PatchGrid, LabelMap<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let patch_size = model.spec().patch_size;
        let (mut frame, mut fit) = (Frame::new(), new_fit(self.size, patch_size)?);
        let mut skipped = Skipped::new("segmentation", unit, images.len());
        let bar = task_bar("segmentation", model.name(), images.len(), unit);
        for (image, path) in images.iter() {
            bar.advance(1);
            let labels = match read_pair(image, path, &mut frame) {
                Ok(labels) => labels,
                Err(error) => {
                    bar.suspend(|| skipped.add(image, error))?;
                    continue;
                }
            };
            let grid = grid(&fit, &frame, image)?;
            let labels = covered(labels, self.size, grid, patch_size);
            visit(model, fitted(&mut fit, &frame, image)?, grid, self.map(&labels, path)?)?;
        }
        bar.finish();
        skipped.finish(model)
    }

    fn train(&self, model: &mut LoadedModel) -> Result<LinearProbe, EvalError> {
        let dim = model.spec().dim;
        let (mut features, mut targets) = (Vec::new(), Vec::new());
        self.visit(&self.train, TRAINING, model, |model, image, grid, labels| {
            let tokens = model.features(image)?;
            if features.len() + tokens.patches().len() > MAX_TRAINING_VALUES {
                let expected = format!("at most {MAX_TRAINING_VALUES} feature values of training images");
                return Err(EvalError::input("segmentation", expected, "more; try a smaller size"));
            }
            features.extend_from_slice(tokens.patches());
            labels.patch_shares(grid, &mut targets);
            Ok(())
        })?;
        let config = ProbeConfig { threads: model.threads(), ..ProbeConfig::default() };
        let bar = task_bar("segmentation probe", model.name(), config.max_steps, "steps at most");
        let (probe, fit) =
            LinearProbe::fit((&features, dim), (&targets, self.classes), &config, |_, _| bar.advance(1))?;
        bar.finish();
        if !fit.converged {
            let (name, steps) = (model.name(), fit.steps);
            note(&format!("note: the probe of {name} stopped after {steps} steps, short of its tolerance"));
        }
        Ok(probe)
    }

    /// Fits a probe for the model and measures it.
    ///
    /// # Errors
    /// No readable pair, or an error of the engine or the fit.
    pub fn evaluate(&self, model: &mut LoadedModel) -> Result<Vec<Measure>, EvalError> {
        let probe = self.train(model)?;
        let (mut confusion, mut logits) = (Confusion::new(self.classes), Vec::new());
        self.visit(&self.val, VALIDATION, model, |model, image, grid, labels| {
            probe.logits_into(model.features(image)?.patches(), &mut logits)?;
            confusion.add(&logits, grid, labels).expect("logits are those of the grid");
            Ok(())
        })?;
        let task = format!("segmentation {}", self.size);
        Ok(vec![
            Measure::new(&task, "mIoU", Unit::Share, confusion.mean_iou()),
            Measure::new(&task, "pixel accuracy", Unit::Share, confusion.accuracy()),
        ])
    }

    /// The protocol, as a note for the table.
    pub fn note(&self) -> String {
        format!(
            "segmentation: linear probe on patches of {} images, scored on {}; {} classes, label {} ignored, size {}",
            self.train.len(),
            self.val.len(),
            self.classes,
            self.ignore,
            self.size
        )
    }
}

/// Calls `visit` with the label map of every readable pair, and its path.
fn visit_labels(
    images: &PairedImages,
    unit: &'static str,
    mut visit: impl FnMut(Labels, &Path) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let (mut frame, mut skipped) = (Frame::new(), Skipped::new("segmentation", unit, images.len()));
    let bar = task_bar("segmentation", "label maps", images.len(), unit);
    for (image, path) in images.iter() {
        bar.advance(1);
        match read_pair(image, path, &mut frame) {
            Ok(labels) => visit(labels, path)?,
            Err(error) => bar.suspend(|| skipped.add(image, error))?,
        }
    }
    bar.finish();
    skipped.check()
}

/// A `Fit`, with the size in the message.
pub(super) fn new_fit(size: Size, patch_size: usize) -> Result<Fit, EvalError> {
    Fit::new(size, patch_size).map_err(|source| EvalError::Fit { source, path: format!("size {size}") })
}

/// The part of a label map that the grid covers: the centre, where nothing is resampled.
pub(super) fn covered(labels: Labels, size: Size, grid: PatchGrid, patch_size: usize) -> Labels {
    if size == Size::Native { labels.centre(grid.cols * patch_size, grid.rows * patch_size) } else { labels }
}
