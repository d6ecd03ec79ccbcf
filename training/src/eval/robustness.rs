//! Robustness: how much corruptions change a model's features, and the classes found with them.

use std::path::PathBuf;

use dinov2_core::statistics::cosine;
use dinov2_core::{Features, ImageView};
use dinov2_eval::{Bank, Embeddings, Measure, NEIGHBOURS, Unit};
use dinov2_io::Size;

use super::corruptions::{Corruption, Severity};
use super::images::{Reader, spread};
use super::skipped::Skipped;
use super::{ClassFolders, EvalError, LoadedModel};
use crate::progress::task_bar;
use crate::statistics::mean;

/// Images to corrupt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Pictures {
    /// Of known classes, which are searched among the clean images of `Embeddings`.
    Classes(ClassFolders),
    /// Without classes.
    Files(Vec<PathBuf>),
}

/// Images in every corruption at five severities.
#[derive(Clone, Debug)]
pub struct Robustness {
    /// The images to select from.
    pub pictures: Pictures,
    /// Number of images, evenly spaced.
    pub count: usize,
    /// Size at which images are corrupted.
    pub size: Size,
}

/// Results of one corruption.
#[derive(Default)]
struct Scores {
    /// Mean patch cosine to the clean picture, per picture and severity.
    cosines: Vec<f64>,
    right: usize,
    /// Images with a class.
    classified: usize,
}

/// Neighbours among the clean images.
struct Clean {
    bank: Bank,
    /// The bank's entry of every listed image; `None` for unreadable ones.
    entries: Vec<Option<usize>>,
}

impl Robustness {
    /// Measures a model. `embeddings`: its features of the clean images of classes, at the same size.
    ///
    /// # Errors
    /// No readable image, or an error of the engine.
    pub fn evaluate(
        &self,
        model: &mut LoadedModel,
        embeddings: Option<&Embeddings>,
    ) -> Result<Vec<Measure>, EvalError> {
        let clean = match (&self.pictures, embeddings) {
            (Pictures::Classes(images), Some(embeddings)) => Some(Clean::of(images, embeddings)),
            _ => None,
        };
        let chosen = self.chosen();
        let mut reader = Reader::new(self.size, model.spec().patch_size)?;
        let mut scores: Vec<Scores> = Corruption::ALL.iter().map(|_| Scores::default()).collect();
        let mut clean_scores = Scores::default();
        let each = Corruption::ALL.len() * Severity::ALL.len();
        let mut skipped = Skipped::new("robustness", "pictures", chosen.len());
        let bar = task_bar("robustness", model.name(), chosen.len() * each, "pictures");
        for (index, path) in &chosen {
            let image = match reader.read(path) {
                Ok(image) => image,
                Err(error) => {
                    bar.suspend(|| skipped.add(path, error))?;
                    continue;
                }
            };
            let features = model.features(image)?;
            let reference = features.patches().to_vec();
            let own = clean.as_ref().and_then(|clean| Some((clean, clean.entries[*index]?)));
            if let Some((clean, entry)) = own {
                clean_scores.classify(clean, features.cls(), entry);
            }
            for (kind, scores) in Corruption::ALL.into_iter().zip(&mut scores) {
                for severity in Severity::ALL {
                    let pixels = kind.apply(image, severity, seed(*index, kind, severity));
                    let corrupted = ImageView::new(&pixels, image.width_px(), image.height_px())
                        .expect("a corrupted picture keeps its size");
                    let features = model.features(corrupted)?;
                    scores.compare(&reference, features);
                    if let Some((clean, entry)) = own {
                        scores.classify(clean, features.cls(), entry);
                    }
                    bar.advance(1);
                }
            }
        }
        bar.finish();
        skipped.finish(model)?;
        Ok(self.measures(&scores, &clean_scores))
    }

    fn measures(&self, scores: &[Scores], clean: &Scores) -> Vec<Measure> {
        let task = format!("robustness {}", self.size);
        let mut measures = Vec::new();
        let all: Vec<f64> = scores.iter().map(|scores| mean(&scores.cosines)).collect();
        measures.push(Measure::new(&task, "patch cosine to clean, mean", Unit::Similarity, mean(&all)));
        for (kind, cosine) in Corruption::ALL.iter().zip(&all) {
            measures.push(Measure::new(&task, format!("patch cosine, {kind}"), Unit::Similarity, *cosine));
        }
        if clean.classified > 0 {
            let shares: Vec<f64> = scores.iter().map(Scores::share).collect();
            measures.push(Measure::new(&task, "kNN, clean", Unit::Share, clean.share()));
            measures.push(Measure::new(&task, "kNN, mean", Unit::Share, mean(&shares)));
            for (kind, share) in Corruption::ALL.iter().zip(shares) {
                measures.push(Measure::new(&task, format!("kNN, {kind}"), Unit::Share, share));
            }
        }
        measures
    }

    /// Selected images and their places in the list.
    fn chosen(&self) -> Vec<(usize, PathBuf)> {
        let all: Vec<(usize, PathBuf)> = match &self.pictures {
            Pictures::Classes(images) => {
                images.images().iter().map(|(path, _)| path.clone()).enumerate().collect()
            }
            Pictures::Files(files) => files.iter().cloned().enumerate().collect(),
        };
        spread(&all, self.count)
    }

    /// The protocol, as a note for the table.
    pub fn note(&self) -> String {
        let classes = match self.pictures {
            Pictures::Classes(_) => {
                "; kNN of corrupted pictures among clean ones, their own left out, k = 20"
            }
            Pictures::Files(_) => "",
        };
        format!(
            "robustness: {} pictures, {} corruptions of ImageNet-C at {} severities, size {}{classes}",
            self.chosen().len(),
            Corruption::ALL.len(),
            Severity::ALL.len(),
            self.size
        )
    }
}

impl Clean {
    fn of(images: &ClassFolders, embeddings: &Embeddings) -> Self {
        let mut entries = vec![None; images.images().len()];
        for (entry, place) in embeddings.places.iter().enumerate() {
            entries[*place] = Some(entry);
        }
        Self { bank: Bank::new(&embeddings.cls(), embeddings.dim, embeddings.classes.clone()), entries }
    }
}

impl Scores {
    /// reference: `[rows, cols, dim]`, of the clean picture.
    fn compare(&mut self, reference: &[f32], features: &Features) {
        let dim = features.dim();
        let rows = reference.chunks_exact(dim).zip(features.patches().chunks_exact(dim));
        self.cosines.push(mean(&rows.map(|(want, got)| cosine(want, got)).collect::<Vec<_>>()));
    }

    /// Classifies an image whose own entry in the bank is excluded.
    fn classify(&mut self, clean: &Clean, cls: &[f32], entry: usize) {
        let k = NEIGHBOURS[1];
        let found = clean.bank.nearest(cls, k, |_| Some(entry));
        self.classified += 1;
        self.right += usize::from(clean.bank.vote(&found[0], k) == Some(clean.bank.class(entry)));
    }

    fn share(&self) -> f64 {
        self.right as f64 / self.classified as f64
    }
}

/// A seed for every image, kind and severity, the same for every model.
fn seed(index: usize, kind: Corruption, severity: Severity) -> u64 {
    (index as u64) << 16 | (kind as u64) << 8 | u64::from(severity.get())
}
