//! Images of classes: nearest neighbours and a linear classifier.

use dinov2_heads::{LinearProbe, ProbeConfig};
use dinov2_io::Size;

use super::images::Reader;
use super::knn::Bank;
use super::skipped::Skipped;
use super::table::{Measure, Unit};
use super::{ClassFolders, EvalError, LoadedModel};
use crate::progress::task_bar;

/// Neighbours that vote.
pub(super) const NEIGHBOURS: [usize; 2] = [10, 20];
/// Where one folder is all there is, every fifth image of a class tests the classifier.
const HELD_OUT_EVERY: usize = 5;
/// Weight of the penalty on the classifier's weights: there are fewer images than numbers in a feature.
const L2: f64 = 1e-2;
/// Most values of features that are held: 8 GiB.
const MAX_VALUES: usize = 1 << 31;

/// Images of classes, and at which size they are looked at.
#[derive(Clone, Debug)]
pub struct Classification {
    /// Images with known classes.
    pub train: ClassFolders,
    /// Images whose classes are to be found. Without them, neighbours of each training image are looked for among the others, and
    /// the classifier is trained on four fifths of every class and tested on the last fifth.
    pub val: Option<ClassFolders>,
    /// Size, as in `dinov2-edge run`; nothing is cropped.
    pub size: Size,
}

/// What a model makes of the training images: [`super::Robustness`] looks for classes among them, too.
pub struct Embeddings {
    /// Width of a token.
    pub(super) dim: usize,
    /// `[n, 2 * dim]`: the CLS token and the mean of the patch tokens.
    values: Vec<f32>,
    /// `[n]`
    pub(super) classes: Vec<u32>,
    /// `[n]`, places in the list of images: those that cannot be read are missing.
    pub(super) places: Vec<usize>,
}

impl Embeddings {
    /// Looks at every image; those that cannot be read are told and left out.
    fn of(
        images: &ClassFolders,
        unit: &'static str,
        size: Size,
        model: &mut LoadedModel,
    ) -> Result<Self, EvalError> {
        let dim = model.spec().dim;
        if images.images().len().saturating_mul(2 * dim) > MAX_VALUES {
            let expected = format!("at most {} images for features of {dim}", MAX_VALUES / (2 * dim));
            return Err(EvalError::input("classes", expected, images.images().len().to_string()));
        }
        let mut reader = Reader::new(size, model.spec().patch_size)?;
        let mut embeddings = Self { dim, values: Vec::new(), classes: Vec::new(), places: Vec::new() };
        let total = images.images().len();
        let mut skipped = Skipped::new("classes", unit, total);
        let bar = task_bar("classes", model.name(), total, unit);
        for (place, (path, class)) in images.images().iter().enumerate() {
            bar.advance(1);
            let image = match reader.read(path) {
                Ok(image) => image,
                Err(error) => {
                    bar.suspend(|| skipped.add(path, error))?;
                    continue;
                }
            };
            let features = model.features(image)?;
            embeddings.values.extend_from_slice(features.cls());
            embeddings.values.extend(mean(features.patches(), dim));
            embeddings.classes.push(*class);
            embeddings.places.push(place);
        }
        bar.finish();
        skipped.finish(model)?;
        Ok(embeddings)
    }

    /// `[n, dim]`
    pub(super) fn cls(&self) -> Vec<f32> {
        let rows = self.values.chunks_exact(2 * self.dim);
        rows.flat_map(|row| &row[..self.dim]).copied().collect()
    }

    /// Those of some images.
    fn part(&self, wanted: impl Fn(usize) -> bool) -> Self {
        let width = 2 * self.dim;
        let chosen: Vec<usize> = (0..self.classes.len()).filter(|index| wanted(*index)).collect();
        Self {
            dim: self.dim,
            values: chosen.iter().flat_map(|index| &self.values[index * width..][..width]).copied().collect(),
            classes: chosen.iter().map(|index| self.classes[*index]).collect(),
            places: chosen.iter().map(|index| self.places[*index]).collect(),
        }
    }
}

/// Mean of `rows: [n, dim]`.
fn mean(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let count = (rows.len() / dim).max(1) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

impl Classification {
    /// Looks at the training images.
    ///
    /// # Errors
    /// None that can be read, too many, or what the engine reports.
    pub fn embed(&self, model: &mut LoadedModel) -> Result<Embeddings, EvalError> {
        let unit = if self.val.is_some() { "training images" } else { "images" };
        Embeddings::of(&self.train, unit, self.size, model)
    }

    /// Judges a model; `train` is what it made of the training images.
    ///
    /// # Errors
    /// No validation image that can be read, or what the engine or the fit reports.
    pub fn evaluate(&self, train: &Embeddings, model: &mut LoadedModel) -> Result<Vec<Measure>, EvalError> {
        let of = |val| Embeddings::of(val, "validation images", self.size, model);
        let val = self.val.as_ref().map(of).transpose()?;
        let task = format!("classes {}", self.size);
        let bank = Bank::new(&train.cls(), train.dim, train.classes.clone());
        let most = NEIGHBOURS.into_iter().max().unwrap_or_default();
        let (found, classes) = match &val {
            Some(val) => (bank.nearest(&val.cls(), most, |_| None), &val.classes),
            None => (bank.nearest(&train.cls(), most, Some), &train.classes),
        };
        let mut measures: Vec<Measure> = NEIGHBOURS
            .into_iter()
            .map(|k| {
                Measure::new(&task, format!("kNN, k = {k}"), Unit::Share, bank.accuracy(&found, classes, k))
            })
            .collect();
        let (fitted, tested) = match val {
            Some(val) => (None, val),
            None => {
                let held_out = held_out(&train.classes);
                (Some(train.part(|index| !held_out[index])), train.part(|index| held_out[index]))
            }
        };
        if !tested.classes.is_empty() {
            let accuracy = probe(fitted.as_ref().unwrap_or(train), &tested, self.train.classes(), model)?;
            measures.push(Measure::new(&task, "linear probe", Unit::Share, accuracy));
        }
        Ok(measures)
    }

    /// How it is measured.
    pub fn note(&self) -> String {
        let images = self.train.images().len();
        let split = match &self.val {
            Some(val) => format!("{images} training and {} validation images", val.images().len()),
            None => format!(
                "{images} images, each model by the others; probe on 4/5 of each class, tested on the rest"
            ),
        };
        format!(
            "classes: {split}, {} classes, size {}; kNN on the CLS token, weights exp(cosine / 0.07); probe on CLS and mean patch",
            self.train.classes(),
            self.size
        )
    }
}

/// True for the last of every five images of a class.
fn held_out(classes: &[u32]) -> Vec<bool> {
    let mut seen = std::collections::HashMap::new();
    let counted = classes.iter().map(|class| {
        let seen = seen.entry(*class).or_insert(0_usize);
        *seen += 1;
        seen.is_multiple_of(HELD_OUT_EVERY)
    });
    counted.collect()
}

/// Share of the tested images whose class a linear classifier of the others finds.
fn probe(
    fitted: &Embeddings,
    tested: &Embeddings,
    classes: usize,
    model: &LoadedModel,
) -> Result<f64, EvalError> {
    let mut targets = vec![0.0; fitted.classes.len() * classes];
    for (row, class) in targets.chunks_exact_mut(classes).zip(&fitted.classes) {
        row[*class as usize] = 1.0;
    }
    let config = ProbeConfig { l2: L2, threads: model.threads(), ..ProbeConfig::default() };
    let bar = task_bar("class probe", model.name(), config.max_steps, "steps at most");
    let width = 2 * fitted.dim;
    let (probe, _) =
        LinearProbe::fit((&fitted.values, width), (&targets, classes), &config, |_, _| bar.advance(1))?;
    bar.finish();
    let mut logits = Vec::new();
    probe.logits_into(&tested.values, &mut logits)?;
    let right = logits.chunks_exact(classes).zip(&tested.classes).filter(|(logits, class)| {
        let best =
            (0..classes).max_by(|left, right| logits[*left].total_cmp(&logits[*right]).then(right.cmp(left)));
        best == Some(**class as usize)
    });
    Ok(right.count() as f64 / tested.classes.len() as f64)
}
