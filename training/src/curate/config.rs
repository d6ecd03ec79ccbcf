//! Settings of a curation, checked before any file is read.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use dinov2_cpu::CpuPrecision;
use serde::Serialize;

use super::{CurateError, CurateModel};

/// Largest number of neighbours: the memory of a million points with 256 is 2 GB.
const MAX_NEIGHBOURS: usize = 256;
/// Most directions that are removed: with more, little of the images' content remains.
const MAX_COMMON: usize = 32;

/// Least clusters of an automatically chosen level.
const LEAST_CLUSTERS: usize = 8;

/// When two images count as showing the same: their cosine is high, or it is fairly high and their hashes are similar.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sameness {
    /// Least cosine that suffices alone.
    pub cosine: f32,
    /// Least cosine that suffices where hashes agree.
    pub hashed_cosine: f32,
    /// Most bits in which hashes that agree differ.
    pub hash_distance: u32,
}

/// Inputs, output and settings of a curation.
#[derive(Clone, Debug)]
pub struct CurateConfig {
    /// Images to choose from, besides `frames`.
    pub data: Vec<String>,
    /// Frames of videos to choose from: those of a folder or shard are one video, in their order.
    pub frames: Vec<String>,
    /// Images of evaluation sets: images that show the same are left out.
    pub evaluation: Vec<String>,
    /// The robot's own frames: images nearest to them are taken first.
    pub seeds: Vec<String>,
    /// Images to measure the common part of embeddings on, or one file `common.json`. Empty: the images to
    /// choose from; with `frames` or few images, the model's own common part (`MODEL.common.json`) if there is one: a video
    /// alone has its whole scene in common, and only noise remains without it.
    pub reference: Vec<String>,
    /// Folder for manifest, report and the results of scanning.
    pub out: PathBuf,
    /// The model whose class tokens are the embeddings.
    pub model: CurateModel,
    /// Precision of the model.
    pub precision: CpuPrecision,
    /// Side of the square that images are resized to for the model, whatever their aspect; a multiple of the patch size.
    pub side_px: usize,
    /// Principal directions removed from the embeddings besides their mean; fewer than their dimensions.
    pub common_directions: usize,
    /// Threads.
    pub threads: NonZeroUsize,
    /// Nearest neighbours that are searched for duplicates.
    pub neighbours: usize,
    /// When images are duplicates.
    pub duplicates: Sameness,
    /// Least cosine to the kept image of a duplicate that is connected to it only through others: long chains connect different images.
    pub chained_cosine: f32,
    /// When an image shows the same as one of an evaluation set.
    pub leaks: Sameness,
    /// Least cosine of two frames that show the same: to the last kept frame of their video, then among all remaining frames.
    pub thin_cosine: f32,
    /// Clusters per level, the finest first; empty: chosen by the number of images.
    pub levels: Vec<usize>,
    /// Rounds of resampling per level.
    pub resampling: usize,
    /// Iterations of each k-means.
    pub iterations: usize,
    /// Images to keep; `None`: all that remain.
    pub count: Option<usize>,
    /// Images taken per frame of the robot.
    pub per_seed: usize,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl CurateConfig {
    /// Checks every value that can be checked without files.
    ///
    /// # Errors
    /// The first value out of its range.
    pub fn check(&self) -> Result<(), CurateError> {
        let wrong = |what, expected: &str, got: String| {
            Err(CurateError::Config { what, expected: expected.to_string(), got })
        };
        if !(1..=MAX_NEIGHBOURS).contains(&self.neighbours) {
            return wrong("neighbours", &format!("1..={MAX_NEIGHBOURS}"), self.neighbours.to_string());
        }
        let cosines = [
            ("duplicate cosine", self.duplicates.cosine),
            ("hashed duplicate cosine", self.duplicates.hashed_cosine),
            ("chained cosine", self.chained_cosine),
            ("leak cosine", self.leaks.cosine),
            ("hashed leak cosine", self.leaks.hashed_cosine),
            ("thinning cosine", self.thin_cosine),
        ];
        if let Some((what, cosine)) = cosines.into_iter().find(|(_, cosine)| !(-1.0..=1.0).contains(cosine)) {
            return wrong(what, "-1 to 1", cosine.to_string());
        }
        if self.levels.contains(&0) || self.levels.windows(2).any(|pair| pair[0] <= pair[1]) {
            return wrong("levels", "falling positive numbers", format!("{:?}", self.levels));
        }
        if self.common_directions > MAX_COMMON {
            return wrong(
                "common directions",
                &format!("at most {MAX_COMMON}"),
                self.common_directions.to_string(),
            );
        }
        if self.count == Some(0) {
            return wrong("count", "a positive number", "0".into());
        }
        if self.per_seed == 0 {
            return wrong("images per seed", "a positive number", "0".into());
        }
        Ok(())
    }

    /// Clusters per level for this many images: those asked for, or a finest one of 50 images per cluster and up to two of ten
    /// clusters each above (a million: 20,000, 2,000, 200).
    pub(super) fn levels_for(&self, images: usize) -> Vec<usize> {
        let mut levels = self.levels.clone();
        if levels.is_empty() {
            let finest = images.div_ceil(50);
            levels = vec![finest, finest / 10, finest / 100];
            levels.retain(|&clusters| clusters >= LEAST_CLUSTERS);
        }
        levels.retain(|&clusters| clusters < images);
        if levels.is_empty() { vec![1] } else { levels }
    }
}
