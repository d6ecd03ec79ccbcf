use std::num::NonZeroUsize;
use std::path::PathBuf;

use dinov2_cpu::CpuPrecision;
use serde::Serialize;

use super::{CurateError, CurateModel};

/// Largest number of neighbours: the memory of a million points with 256 is 2 GB.
const MAX_NEIGHBOURS: usize = 256;
/// Most directions that are taken out: beyond, little is left of what images show.
const MAX_COMMON: usize = 32;

/// Clusters of a level below which it is not worth having.
const LEAST_CLUSTERS: usize = 8;

/// When two pictures are said to show the same: their cosine is high, or it is fairly high and their hashes are near each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sameness {
    /// Least cosine that is enough by itself.
    pub cosine: f32,
    /// Least cosine that is enough where hashes agree.
    pub hashed_cosine: f32,
    /// Most bits by which hashes may differ.
    pub hash_distance: u32,
}

/// What is to be chosen from what, and how.
#[derive(Clone, Debug)]
pub struct CurateConfig {
    /// Images to choose from, besides `frames`.
    pub data: Vec<String>,
    /// Frames of videos to choose from: those of a folder or shard are one video, in their order.
    pub frames: Vec<String>,
    /// Images of evaluation sets: what shows the same is left out.
    pub evaluation: Vec<String>,
    /// The robot's own frames: what is nearest to them is taken first.
    pub seeds: Vec<String>,
    /// Images on which is measured what all embeddings have in common, or one file `common.json` in which that is. None: those to
    /// choose from; with `frames`, and where there are few, what is known of the model (`MODEL.common.json`), if anything: a video
    /// alone has its whole scene in common, and what is left without it are trifles.
    pub reference: Vec<String>,
    /// Folder for manifest, report and what a second run need not compute again.
    pub out: PathBuf,
    /// The model whose class tokens are the embeddings.
    pub model: CurateModel,
    /// Arithmetic of the model.
    pub precision: CpuPrecision,
    /// Square side to which images are brought for the model, whatever their aspect; a multiple of the patch size.
    pub side_px: usize,
    /// Directions of largest variance that are taken out of the embeddings besides their mean; fewer than they have dimensions.
    pub common_directions: usize,
    /// Threads.
    pub threads: NonZeroUsize,
    /// Nearest neighbours among which duplicates are looked for.
    pub neighbours: usize,
    /// When images are duplicates.
    pub duplicates: Sameness,
    /// Least cosine to the image that stays, of a duplicate that is joined to it only by way of others: chains join much.
    pub chained_cosine: f32,
    /// When an image is too near to one of an evaluation set.
    pub leaks: Sameness,
    /// Cosine from which on two frames show the same: to the last kept one of their video, then among all that are left.
    pub thin_cosine: f32,
    /// Clusters per level, the finest first; none: chosen by the number of images.
    pub levels: Vec<usize>,
    /// Rounds of resampling per level.
    pub resampling: usize,
    /// Iterations of each k-means.
    pub iterations: usize,
    /// Images wanted; None: all that remain.
    pub count: Option<usize>,
    /// Images taken per frame of the robot.
    pub per_seed: usize,
    /// Where all that is random comes from.
    pub seed: u64,
}

impl CurateConfig {
    /// Checks what needs no file to be judged.
    ///
    /// # Errors
    /// The first value that makes no sense.
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
