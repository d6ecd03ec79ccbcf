//! Label propagation: transfers the labels of a video's first frame to later frames by the similarity of their features.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use dinov2_core::PatchGrid;
use nalgebra::{DMatrix, DMatrixView};

/// An array whose length does not match the grid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {width} values for each of {grid} patches, got {got}")]
pub struct PropagationError {
    /// Name of the array.
    pub what: &'static str,
    /// Expected values per patch.
    pub width: usize,
    /// Grid of the first frame.
    pub grid: PatchGrid,
    /// Actual number of values.
    pub got: usize,
}

/// Configuration of the propagation. The defaults are those of the evaluation of DINO (arXiv 2104.14294, section 4.2.2) on DAVIS 2017.
#[derive(Clone, Copy, Debug)]
pub struct PropagationConfig {
    /// Number of latest frames used as sources, besides the first frame.
    pub context_frames: usize,
    /// Search radius in patches, in each direction.
    pub radius: usize,
    /// Number of most similar patches, over all source frames, whose labels are averaged.
    pub neighbours: NonZeroUsize,
    /// The weight of a source patch is `exp(cosine / temperature)`.
    pub temperature: f32,
    /// Number of threads; the result does not depend on it.
    pub threads: NonZeroUsize,
}

impl Default for PropagationConfig {
    fn default() -> Self {
        let neighbours = NonZeroUsize::MIN.saturating_add(4);
        Self { context_frames: 7, radius: 12, neighbours, temperature: 0.1, threads: NonZeroUsize::MIN }
    }
}

/// Propagates labels from frame to frame: every patch gets the weighted mean of the labels of its most similar patches within the search
/// radius, in the first frame and in the latest ones.
///
/// Nothing is trained. All frames have the same grid. The memory holds `1 + context_frames` frames.
#[derive(Clone, Debug)]
pub struct LabelPropagation {
    config: PropagationConfig,
    grid: PatchGrid,
    dim: usize,
    classes: usize,
    first: Remembered,
    latest: VecDeque<Remembered>,
}

/// A frame with labels.
#[derive(Clone, Debug)]
struct Remembered {
    /// `[n, dim]`, rows of unit length.
    directions: Vec<f32>,
    /// `[n, classes]`
    labels: Vec<f32>,
}

impl LabelPropagation {
    /// Starts with the first frame. patches: `[rows, cols, dim]`; labels: `[rows, cols, classes]`, the share of each class in a patch
    /// ([`crate::LabelMap::patch_shares`]).
    ///
    /// # Errors
    /// Arrays whose lengths do not match the grid.
    pub fn new(
        config: PropagationConfig,
        grid: PatchGrid,
        (patches, dim): (&[f32], usize),
        (labels, classes): (&[f32], usize),
    ) -> Result<Self, PropagationError> {
        check("patch features", patches, grid, dim)?;
        check("labels", labels, grid, classes)?;
        let first = Remembered { directions: directions(patches, dim), labels: labels.to_vec() };
        Ok(Self { config, grid, dim, classes, first, latest: VecDeque::new() })
    }

    /// Writes the labels of the next frame into `out: [rows, cols, classes]`, replacing its content, and keeps them as a source.
    ///
    /// patches: `[rows, cols, dim]`. Sources are all patches within the radius in the first and the latest frames. Over the most similar
    /// ones, `label = sum(exp(cosine / temperature) * label) / sum(exp(cosine / temperature))`. Patches whose features are not finite
    /// are no sources and get no label.
    ///
    /// # Errors
    /// An array whose length does not match the grid.
    pub fn propagate(&mut self, patches: &[f32], out: &mut Vec<f32>) -> Result<(), PropagationError> {
        check("patch features", patches, self.grid, self.dim)?;
        let targets = directions(patches, self.dim);
        out.clear();
        out.resize(self.grid.len() * self.classes, 0.0);
        let row_labels = self.grid.cols * self.classes;
        let rows_each = self.grid.rows.div_ceil(self.config.threads.get());
        let this = &*self;
        std::thread::scope(|scope| {
            for (part, labels) in out.chunks_mut(rows_each * row_labels).enumerate() {
                let targets = &targets;
                scope.spawn(move || {
                    for (index, labels) in labels.chunks_exact_mut(row_labels).enumerate() {
                        this.label_row(part * rows_each + index, targets, labels);
                    }
                });
            }
        });
        if self.config.context_frames > 0 {
            if self.latest.len() == self.config.context_frames {
                self.latest.pop_front();
            }
            self.latest.push_back(Remembered { directions: targets, labels: out.clone() });
        }
        Ok(())
    }

    /// Labels of the patches of one row, `[cols, classes]`.
    fn label_row(&self, row: usize, targets: &[f32], labels: &mut [f32]) {
        let PatchGrid { rows, cols } = self.grid;
        let (radius, row_len) = (self.config.radius, cols * self.dim);
        let near_rows = row.saturating_sub(radius)..(row + radius + 1).min(rows);
        let sources = near_rows.len() * cols;
        let targets =
            DMatrixView::from_slice(&targets[row * row_len..][..row_len], self.dim, cols).transpose();
        let mut nearest: Vec<Nearest<'_>> =
            (0..cols).map(|_| Nearest::new(self.config.neighbours.get())).collect();
        let mut cosines = DMatrix::zeros(cols, sources);
        for frame in std::iter::once(&self.first).chain(&self.latest) {
            let near = &frame.directions[near_rows.start * row_len..near_rows.end * row_len];
            cosines.gemm(1.0, &targets, &DMatrixView::from_slice(near, self.dim, sources), 0.0);
            let near_labels = &frame.labels[near_rows.start * cols * self.classes..];
            let labels = near_labels.chunks_exact(self.classes);
            for (source, (cosines, labels)) in cosines.column_iter().zip(labels).enumerate() {
                let col = source % cols;
                for target in col.saturating_sub(radius)..(col + radius + 1).min(cols) {
                    nearest[target].offer(cosines[target], labels);
                }
            }
        }
        for (nearest, labels) in nearest.iter().zip(labels.chunks_exact_mut(self.classes)) {
            nearest.mix(self.config.temperature, labels);
        }
    }
}

/// The most similar sources so far, by descending cosine.
struct Nearest<'a> {
    most: usize,
    found: Vec<(f32, &'a [f32])>,
}

impl<'a> Nearest<'a> {
    fn new(most: usize) -> Self {
        Self { most, found: Vec::with_capacity(most + 1) }
    }

    fn offer(&mut self, cosine: f32, labels: &'a [f32]) {
        let worst = self.found.last().map_or(f32::NEG_INFINITY, |(cosine, _)| *cosine);
        if cosine.is_nan() || (self.found.len() == self.most && cosine <= worst) {
            return;
        }
        let place = self.found.partition_point(|(found, _)| *found >= cosine);
        self.found.insert(place, (cosine, labels));
        self.found.truncate(self.most);
    }

    fn mix(&self, temperature: f32, out: &mut [f32]) {
        // Relative to the largest, so that no exponential overflows.
        let largest = self.found.first().map_or(0.0, |(cosine, _)| *cosine);
        let weight = |cosine: f32| ((cosine - largest) / temperature).exp();
        let sum: f32 = self.found.iter().map(|(cosine, _)| weight(*cosine)).sum();
        for (cosine, labels) in &self.found {
            let share = weight(*cosine) / sum;
            out.iter_mut().zip(*labels).for_each(|(out, label)| *out += share * label);
        }
    }
}

fn check(what: &'static str, values: &[f32], grid: PatchGrid, width: usize) -> Result<(), PropagationError> {
    if values.is_empty() || values.len() != grid.len() * width {
        return Err(PropagationError { what, width, grid, got: values.len() });
    }
    Ok(())
}

/// Scales patches to unit length; zero vectors stay zero.
fn directions(patches: &[f32], dim: usize) -> Vec<f32> {
    let mut directions = patches.to_vec();
    for patch in directions.chunks_exact_mut(dim) {
        let squared: f64 = patch.iter().map(|value| f64::from(*value).powi(2)).sum();
        if squared > 0.0 {
            let inverse = squared.sqrt().recip() as f32;
            patch.iter_mut().for_each(|value| *value *= inverse);
        }
    }
    directions
}
