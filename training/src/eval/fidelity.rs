//! Fidelity: similarity of a student's features to its teacher's.

use std::path::PathBuf;

use dinov2_core::statistics::{cosine, quantile, sorted};
use dinov2_core::{Features, PatchGrid};
use dinov2_eval::{LinearCka, Measure, Unit};
use dinov2_io::{Fit, Frame, Size, read_still};

use super::images::{fitted, grid, short_side};
use super::segmentation::new_fit;
use super::skipped::Skipped;
use super::{EvalError, LoadedModel};
use crate::progress::task_bar;

/// Most patches that are compared: their cosines are kept in memory for the quantiles.
const MAX_PATCHES: usize = 1 << 28;

/// Images, and the sizes that they are resized to.
#[derive(Clone, Debug)]
pub struct Fidelity {
    /// Files.
    pub images: Vec<PathBuf>,
    /// Sizes, as in `dinov2-edge run`, for the teacher's patches. A student of another patch size sees the image at the size that
    /// gives it the same grid.
    pub sizes: Vec<Size>,
}

impl Fidelity {
    /// Compares a student with its teacher.
    ///
    /// # Errors
    /// No readable image, or an error of an engine.
    pub fn evaluate(
        &self,
        teacher: &mut LoadedModel,
        student: &mut LoadedModel,
    ) -> Result<Vec<Measure>, EvalError> {
        let mut measures = Vec::new();
        for size in &self.sizes {
            measures.extend(self.evaluate_at(*size, teacher, student)?);
        }
        Ok(measures)
    }

    fn evaluate_at(
        &self,
        size: Size,
        teacher: &mut LoadedModel,
        student: &mut LoadedModel,
    ) -> Result<Vec<Measure>, EvalError> {
        let patch_sizes = [teacher.spec().patch_size, student.spec().patch_size];
        let same_patches = patch_sizes[0] == patch_sizes[1];
        if size == Size::Native && !same_patches {
            let got = format!("native, with patches of {} and {}", patch_sizes[0], patch_sizes[1]);
            return Err(EvalError::input("fidelity", "a size for networks of different patches", got));
        }
        let (mut frame, mut fit) = (Frame::new(), new_fit(size, patch_sizes[0])?);
        let mut compared = Compared::new([teacher.spec().dim, student.spec().dim]);
        let bar = task_bar("fidelity", student.name(), self.images.len(), "images");
        let mut skipped = Skipped::new("fidelity", "images", self.images.len());
        for path in &self.images {
            bar.advance(1);
            if let Err(error) = read_still(path, &mut frame) {
                bar.suspend(|| skipped.add(path, error.into()))?;
                continue;
            }
            let grid = grid(&fit, &frame, path)?;
            let want = teacher.features(fitted(&mut fit, &frame, path)?)?;
            let got = if same_patches {
                student.features(fitted(&mut fit, &frame, path)?)?
            } else {
                student.features(fitted(&mut fit_to(grid, patch_sizes[1])?, &frame, path)?)?
            };
            compared.add(want, got)?;
        }
        bar.finish();
        skipped.finish(student)?;
        Ok(compared.measures(&format!("fidelity {size}")))
    }

    /// Short side of the teacher's and the student's images per size; none for the native size.
    ///
    /// # Errors
    /// A size that is no multiple of the teacher's patch size.
    pub fn image_sides(
        &self,
        teacher: &LoadedModel,
        student: &LoadedModel,
    ) -> Result<[Vec<Measure>; 2], EvalError> {
        let [own, other] = [teacher, student].map(|model| model.spec().patch_size);
        let mut measures = [Vec::new(), Vec::new()];
        for size in self.sizes.iter().filter(|size| **size != Size::Native) {
            let side = short_side(*size, own)?;
            for (measures, side) in measures.iter_mut().zip([side, side / own * other]) {
                measures.push(Measure::image_side(&format!("fidelity {size}"), side));
            }
        }
        Ok(measures)
    }

    /// The protocol, as a note for the table.
    pub fn note(&self) -> String {
        format!(
            "fidelity: to the teacher, on {} images; a student of other patches sees them at the size that gives it the teacher's grid; \
             cosines where both features have the same width, CKA always",
            self.images.len()
        )
    }
}

/// Results of the images so far.
struct Compared {
    dims: [usize; 2],
    patches: usize,
    /// Empty where the widths differ.
    patch_cosines: Vec<f64>,
    cls_cosines: Vec<f64>,
    alignment: LinearCka,
}

impl Compared {
    fn new(dims: [usize; 2]) -> Self {
        let alignment = LinearCka::new(dims[0], dims[1]);
        Self { dims, patches: 0, patch_cosines: Vec::new(), cls_cosines: Vec::new(), alignment }
    }

    fn add(&mut self, want: &Features, got: &Features) -> Result<(), EvalError> {
        self.patches += want.grid().len();
        if self.patches > MAX_PATCHES {
            let expected = format!("at most {MAX_PATCHES} patches");
            return Err(EvalError::input("fidelity", expected, "more; try fewer images"));
        }
        self.alignment.add(want.patches(), got.patches());
        if self.dims[0] == self.dims[1] {
            let dim = self.dims[0];
            let rows = want.patches().chunks_exact(dim).zip(got.patches().chunks_exact(dim));
            self.patch_cosines.extend(rows.map(|(want, got)| cosine(want, got)));
            self.cls_cosines.push(cosine(want.cls(), got.cls()));
        }
        Ok(())
    }

    fn measures(self, task: &str) -> Vec<Measure> {
        let mut measures = Vec::new();
        if self.dims[0] == self.dims[1] {
            let (patches, cls) = (sorted(self.patch_cosines), sorted(self.cls_cosines));
            for (name, value) in [
                ("patch cosine, median", quantile(&patches, 0.5)),
                ("patch cosine, 5th percentile", quantile(&patches, 0.05)),
                ("CLS cosine, median", quantile(&cls, 0.5)),
            ] {
                measures.push(Measure::new(task, name, Unit::Similarity, value));
            }
        }
        measures.push(Measure::new(task, "linear CKA of patches", Unit::Similarity, self.alignment.value()));
        measures
    }
}

/// A `Fit` that gives an image the same grid with another patch size.
fn fit_to(grid: PatchGrid, patch_size: usize) -> Result<Fit, EvalError> {
    new_fit(Size::Exact { width_px: grid.cols * patch_size, height_px: grid.rows * patch_size }, patch_size)
}
