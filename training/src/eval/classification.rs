//! Images of classes: nearest neighbours and a linear classifier.

use dinov2_eval::{Bank, Embeddings, Measure, NEIGHBOURS, Unit, held_out, mean};
use dinov2_heads::ProbeConfig;
use dinov2_io::Size;

use super::images::Reader;
use super::skipped::Skipped;
use super::{ClassFolders, EvalError, LoadedModel};
use crate::progress::task_bar;

/// Weight of the penalty on the classifier's weights: there are fewer images than numbers in a feature.
const L2: f64 = 1e-2;
/// Most values of features in memory: 8 GiB.
const MAX_VALUES: usize = 1 << 31;

/// Images of classes, and the size that they are resized to.
#[derive(Clone, Debug)]
pub struct Classification {
    /// Images with known classes.
    pub train: ClassFolders,
    /// Images to classify. Without them, each training image is classified by its neighbours among the others, and
    /// the classifier is trained on four fifths of every class and tested on the last fifth.
    pub val: Option<ClassFolders>,
    /// Size, as in `dinov2-edge run`; nothing is cropped.
    pub size: Size,
}

impl Classification {
    /// Features of the training images.
    ///
    /// # Errors
    /// No readable image, too many images, or an error of the engine.
    pub fn embed(&self, model: &mut LoadedModel) -> Result<Embeddings, EvalError> {
        let unit = if self.val.is_some() { "training images" } else { "images" };
        embed(&self.train, unit, self.size, model)
    }

    /// Measures a model. `train`: its features of the training images.
    ///
    /// # Errors
    /// No readable validation image, or an error of the engine or the fit.
    pub fn evaluate(&self, train: &Embeddings, model: &mut LoadedModel) -> Result<Vec<Measure>, EvalError> {
        let of = |val| embed(val, "validation images", self.size, model);
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
            let fitted = fitted.as_ref().unwrap_or(train);
            let config = ProbeConfig { l2: L2, threads: model.threads(), ..ProbeConfig::default() };
            let bar = task_bar("class probe", model.name(), config.max_steps, "steps at most");
            let accuracy =
                fitted.probe_accuracy(&tested, self.train.classes(), &config, &mut || bar.advance(1))?;
            bar.finish();
            measures.push(Measure::new(&task, "linear probe", Unit::Share, accuracy));
        }
        Ok(measures)
    }

    /// The protocol, as a note for the table.
    pub fn note(&self) -> String {
        let images = self.train.images().len();
        let split = match &self.val {
            Some(val) => format!("{images} training and {} validation images", val.images().len()),
            None => format!(
                "{images} images, each judged by the others; probe on 4/5 of each class, tested on the rest"
            ),
        };
        format!(
            "classes: {split}, {} classes, size {}; kNN on the CLS token, weights exp(cosine / 0.07); probe on CLS and mean patch",
            self.train.classes(),
            self.size
        )
    }
}

/// Features of every image; unreadable ones are reported and left out.
fn embed(
    images: &ClassFolders,
    unit: &'static str,
    size: Size,
    model: &mut LoadedModel,
) -> Result<Embeddings, EvalError> {
    let dim = model.spec().dim;
    if images.images().len().saturating_mul(2 * dim) > MAX_VALUES {
        let expected = format!("at most {} images for features of {dim}", MAX_VALUES / (2 * dim));
        return Err(EvalError::input("classes", expected, images.images().len().to_string()));
    }
    let mut reader = Reader::new(size, model.spec().patch_size)?;
    let mut embeddings = Embeddings { dim, values: Vec::new(), classes: Vec::new(), places: Vec::new() };
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
