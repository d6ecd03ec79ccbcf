//! Label maps, and the score of patch logits against them (IoU, accuracy).

use dinov2_core::PatchGrid;

use crate::upsample::Tap;

/// Errors of label maps and their scoring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// A number of labels that does not match the size of the image.
    #[error("labels: expected {width_px}x{height_px} pixels, got {got}")]
    Size {
        /// Width of the picture.
        width_px: usize,
        /// Height of the picture.
        height_px: usize,
        /// Labels given.
        got: usize,
    },
    /// A label that is not a class.
    #[error("label: expected less than {classes}, got {got} at column {x}, row {y}")]
    Class {
        /// Number of classes.
        classes: usize,
        /// The label.
        got: u8,
        /// Column of the pixel.
        x: usize,
        /// Row of the pixel.
        y: usize,
    },
    /// A number of logits that does not match the grid.
    #[error("logits: expected {classes} for each of {grid} patches, got {got}")]
    Logits {
        /// Number of classes.
        classes: usize,
        /// Grid of the patches.
        grid: PatchGrid,
        /// Logits given.
        got: usize,
    },
}

/// A label map: the class of every pixel.
#[derive(Clone, Copy, Debug)]
pub struct LabelMap<'a> {
    /// `[height_px, width_px]`
    pixels: &'a [u8],
    width_px: usize,
    height_px: usize,
    classes: usize,
    ignore: u8,
}

impl<'a> LabelMap<'a> {
    /// A label map over `pixels: [height_px, width_px]`. Labels are below `classes`, or `ignore`.
    ///
    /// # Errors
    /// A wrong number of pixels, no pixels, or a label that is neither a class nor `ignore`.
    pub fn new(
        pixels: &'a [u8],
        (width_px, height_px): (usize, usize),
        classes: usize,
        ignore: u8,
    ) -> Result<Self, LabelError> {
        if pixels.is_empty() || width_px.checked_mul(height_px) != Some(pixels.len()) {
            return Err(LabelError::Size { width_px, height_px, got: pixels.len() });
        }
        let wrong = pixels.iter().position(|&label| label != ignore && usize::from(label) >= classes);
        if let Some(index) = wrong {
            let (x, y) = (index % width_px, index / width_px);
            return Err(LabelError::Class { classes, got: pixels[index], x, y });
        }
        Ok(Self { pixels, width_px, height_px, classes, ignore })
    }

    /// Appends the share of each class in each patch, `[rows, cols, classes]`: pixels of the class divided by pixels of the patch. A
    /// pixel belongs to the patch that contains its centre; ignored pixels belong to no class.
    ///
    /// With these targets the loss of a [`crate::LinearProbe`] is the cross-entropy over all labelled pixels.
    ///
    /// # Panics
    /// If the grid has no patches.
    pub fn patch_shares(&self, grid: PatchGrid, out: &mut Vec<f32>) {
        let start = out.len();
        out.resize(start + grid.len() * self.classes, 0.0);
        let shares = &mut out[start..];
        let mut pixels = vec![0u32; grid.len()];
        let rows = (0..self.height_px).map(|y| nearest(y, self.height_px, grid.rows));
        for (labels, row) in self.pixels.chunks_exact(self.width_px).zip(rows) {
            for (x, &label) in labels.iter().enumerate() {
                let patch = row * grid.cols + nearest(x, self.width_px, grid.cols);
                pixels[patch] += 1;
                if label != self.ignore {
                    shares[patch * self.classes + usize::from(label)] += 1.0;
                }
            }
        }
        for (shares, pixels) in shares.chunks_exact_mut(self.classes).zip(pixels) {
            shares.iter_mut().for_each(|share| *share /= pixels.max(1) as f32);
        }
    }
}

/// Index of the cell, of `cells`, that contains the centre of pixel `position` of `length`.
fn nearest(position: usize, length: usize, cells: usize) -> usize {
    (2 * position + 1) * cells / (2 * length)
}

/// A confusion matrix in pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[classes (label), classes (predicted)]`
    pixels: Vec<u64>,
}

impl Confusion {
    /// An empty matrix.
    ///
    /// # Panics
    /// If `classes` is zero.
    pub fn new(classes: usize) -> Self {
        assert!(classes > 0, "classes: expected a positive number, got 0");
        Self { classes, pixels: vec![0; classes * classes] }
    }

    /// Adds one picture: `logits: [rows, cols, classes]` are interpolated bilinearly to its pixels (pixel centres,
    /// edges repeated: PyTorch's `align_corners=False`), and the largest is the class.
    ///
    /// # Errors
    /// A number of logits that does not match the grid.
    ///
    /// # Panics
    /// If the label map has another number of classes.
    pub fn add(&mut self, logits: &[f32], grid: PatchGrid, labels: LabelMap<'_>) -> Result<(), LabelError> {
        let classes = self.classes;
        assert_eq!(classes, labels.classes, "labels of as many classes");
        if grid.is_empty() || logits.len() != grid.len() * classes {
            return Err(LabelError::Logits { classes, grid, got: logits.len() });
        }
        let columns: Vec<Tap> =
            (0..labels.width_px).map(|x| Tap::at(x, labels.width_px, grid.cols)).collect();
        let mut line = vec![0.0; grid.cols * classes];
        for (y, labels_line) in labels.pixels.chunks_exact(labels.width_px).enumerate() {
            let tap = Tap::at(y, labels.height_px, grid.rows);
            let row = |index: usize| &logits[index * grid.cols * classes..][..grid.cols * classes];
            tap.blend(row(tap.first), row(tap.second), line.iter_mut());
            for (column, &label) in columns.iter().zip(labels_line) {
                if label != labels.ignore {
                    let patch = |index: usize| &line[index * classes..][..classes];
                    let predicted = largest(column, patch(column.first), patch(column.second));
                    self.pixels[usize::from(label) * classes + predicted] += 1;
                }
            }
        }
        Ok(())
    }

    /// Number of pixels.
    pub fn total(&self) -> u64 {
        self.pixels.iter().sum()
    }

    /// Share of correctly classified pixels; NaN without pixels.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = self.pixels.iter().step_by(self.classes + 1).sum();
        right as f64 / self.total() as f64
    }

    /// Intersection over union per class; `None` for a class that occurs neither in the labels nor in the predictions.
    pub fn class_iou(&self) -> Vec<Option<f64>> {
        let classes = self.classes;
        let iou = |class: usize| {
            let right = self.pixels[class * classes + class];
            let there: u64 = self.pixels[class * classes..][..classes].iter().sum();
            let predicted: u64 = self.pixels[class..].iter().step_by(classes).sum();
            let union = there + predicted - right;
            (union > 0).then(|| right as f64 / union as f64)
        };
        (0..classes).map(iou).collect()
    }

    /// Mean of [`Self::class_iou`] over the classes that have one; NaN if none has.
    pub fn mean_iou(&self) -> f64 {
        let known: Vec<f64> = self.class_iou().into_iter().flatten().collect();
        known.iter().sum::<f64>() / known.len() as f64
    }
}

/// The class of the largest logit between two patches; the first of equal ones.
fn largest(tap: &Tap, first: &[f32], second: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, (first, second)) in first.iter().zip(second).enumerate() {
        let logit = first + (second - first) * tap.share;
        if logit > best.1 {
            best = (class, logit);
        }
    }
    best.0
}
