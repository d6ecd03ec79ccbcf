//! The common part of all embeddings: their mean and the directions of largest variance. Measured, read, written and removed here;
//! `reference` decides which images it is measured on.
//!
//! Data shape: mean `[dim]`, directions `[directions, dim]`, as JSON in `common.json`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use dinov2_files::chain;
use dinov2_heads::{MAX_FIT_PATCHES, Pca};
use serde::{Deserialize, Serialize};

use super::points::dot;
use super::scan::EmbeddingSetup;
use super::{CurateError, Embeddings, Points, Subset};
use crate::files::write_bytes;

/// Most images that the common part is measured on.
const MOST: usize = MAX_FIT_PATCHES;
/// Images without which it cannot be progress from what single images show.
pub(super) const LEAST: usize = 64;
/// The name of a file with a common part, or its end: `MODEL.common.json` beside `MODEL.safetensors` is that model's.
pub(super) const FILE: &str = "common.json";
/// Largest such file: 32 directions of 4,096 numbers have 2 MB.
const MOST_BYTES: u64 = 16 << 20;

/// The common part of all embeddings, which hides their differences: their mean and the directions of their largest
/// variances. Class tokens of a model that was tuned for another purpose differ little (different photographs have a mean cosine of .69
/// with the bundled model); without the common part, different images are nearly orthogonal. (Mu and Viswanath
/// 2018, arXiv 1702.01417, do this with word vectors.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Common {
    #[serde(flatten)]
    setup: EmbeddingSetup,
    /// Images on which it was measured.
    images: usize,
    /// `[dim]`
    mean: Vec<f32>,
    /// Of unit length, by falling variance: `[directions][dim]`.
    directions: Vec<Vec<f32>>,
}

impl Common {
    /// Measures mean and `directions` on images evenly spaced over `usable`. `None` for fewer than [`LEAST`]
    /// images.
    pub(super) fn measure(
        embeddings: &Embeddings,
        usable: &[u32],
        directions: usize,
        setup: &EmbeddingSetup,
    ) -> Result<Option<Self>, CurateError> {
        if usable.len() < LEAST {
            return Ok(None);
        }
        let images = usable.len().min(MOST);
        let sample: Vec<u32> = (0..images).map(|index| usable[index * usable.len() / images]).collect();
        let mut numbers = Vec::new();
        Subset { points: embeddings, members: &sample }.write_range(0..images, &mut numbers);
        // `Pca::fit` needs at least one component.
        let dim = embeddings.dim();
        let pca = Pca::fit(&numbers, dim, directions.max(1)).map_err(|error| CurateError::Config {
            what: "embeddings",
            expected: "finite numbers, of more dimensions than are left out".into(),
            got: chain(&error),
        })?;
        let directions = pca.directions().chunks_exact(dim).take(directions).map(<[f32]>::to_vec).collect();
        Ok(Some(Self { setup: setup.clone(), images, mean: pca.mean().to_vec(), directions }))
    }

    /// The file of a model's common part.
    pub(super) fn path_for(model: &Path) -> PathBuf {
        let stem = model.file_stem().unwrap_or_default().to_string_lossy();
        model.with_file_name(format!("{stem}.{FILE}"))
    }

    /// Reads a file of [`Self::write`].
    ///
    /// # Errors
    /// A file that cannot be read, or is none.
    pub(super) fn read(path: &Path) -> Result<Self, CurateError> {
        Self::from_reader(&mut File::open(path).map_err(CurateError::file(path))?, path)
    }

    /// The same from an open reader; `path` is for messages.
    pub(super) fn from_reader(reader: &mut dyn Read, path: &Path) -> Result<Self, CurateError> {
        let mut bytes = Vec::new();
        reader.take(MOST_BYTES).read_to_end(&mut bytes).map_err(CurateError::file(path))?;
        let common: Self = serde_json::from_slice(&bytes)
            .map_err(|error| wrong("a mean and directions".into(), error.to_string(), path))?;
        let dim = common.setup.dim;
        for vector in [&common.mean].into_iter().chain(&common.directions) {
            if vector.len() != dim || !vector.iter().all(|number| number.is_finite()) {
                let expected = format!("vectors of {dim} finite numbers");
                return Err(wrong(expected, format!("one of {}", vector.len()), path));
            }
        }
        Ok(common)
    }

    /// Checks that it was measured with the same setup and keeps the first `directions`.
    ///
    /// # Errors
    /// Too few directions or another setup; `path` is for messages.
    pub(super) fn fitting(
        mut self,
        directions: usize,
        setup: &EmbeddingSetup,
        path: &Path,
    ) -> Result<Self, CurateError> {
        if self.setup != *setup {
            let words = |by: &EmbeddingSetup| {
                let model: String = by.model.chars().take(12).collect();
                format!("model {model} in {} at {} pixels", by.precision, by.side_px)
            };
            return Err(wrong(words(setup), words(&self.setup), path));
        }
        if self.directions.len() < directions {
            let expected = format!("at least {directions} directions");
            return Err(wrong(expected, self.directions.len().to_string(), path));
        }
        self.directions.truncate(directions);
        Ok(self)
    }

    /// Writes it, for other runs with the same model.
    pub(super) fn write(&self, path: &Path) -> Result<(), CurateError> {
        let text = serde_json::to_vec(self).expect("plain data can be written");
        write_bytes(path, &text).map_err(CurateError::file(path))
    }

    /// Images on which it was measured.
    pub(super) fn images(&self) -> usize {
        self.images
    }

    /// Mean cosine of two embeddings before the common part is removed.
    pub(super) fn mean_cosine(&self) -> f32 {
        dot(&self.mean, &self.mean)
    }

    /// Removes it and scales the remainder to length 1.
    pub(super) fn remove(&self, embeddings: &Embeddings) -> Embeddings {
        let mut out = Embeddings::new(embeddings.dim());
        out.reserve(embeddings.len());
        let mut vector = vec![0.0; embeddings.dim()];
        for row in 0..embeddings.len() {
            embeddings.write(row, &mut vector);
            vector.iter_mut().zip(&self.mean).for_each(|(value, mean)| *value -= mean);
            for direction in &self.directions {
                let along = dot(&vector, direction);
                vector.iter_mut().zip(direction).for_each(|(value, part)| *value -= along * part);
            }
            out.push(&vector);
        }
        out
    }
}

fn wrong(expected: String, got: String, path: &Path) -> CurateError {
    CurateError::Common { expected, got, path: path.display().to_string() }
}
