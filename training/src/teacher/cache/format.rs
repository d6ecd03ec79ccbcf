//! The files of a cache: manifest, names, sizes of shards, errors.

use std::path::{Path, PathBuf};

use dinov2_core::VitSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Compression;
use super::compress::MAX_COMPONENTS;
use crate::data::DataError;
use crate::recipe::{Recipe, Stage, upgrade_taps};
use crate::teacher::TeacherError;

/// Version of the cache format.
const VERSION: u32 = 3;
/// Most steps of a shard.
const MOST_SHARD_STEPS: u64 = 64;
/// Largest shard, unless a single step is larger: writer and reader hold a whole shard in memory.
const SHARD_BYTES: u64 = 256 << 20;
const MANIFEST: &str = "cache.json";

/// Errors of writing or reading a cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Number of images.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The teacher.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// The device.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is not part of a valid cache.
    #[error("cache: {problem}: {}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// No held-out images to measure means, spreads and components on.
    #[error(
        "cache: expected held-out images to measure features on for int8 (validation_images), got none that can be read"
    )]
    NothingHeldOut,
    /// A cache of another teacher, dataset or recipe.
    #[error("cache: expected the {what} of this run, got another's: {}", path.display())]
    Other {
        /// What differs.
        what: &'static str,
        /// The folder.
        path: PathBuf,
    },
}

impl CacheError {
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(super) fn format(path: &Path, problem: impl ToString) -> Self {
        Self::Format { path: path.into(), problem: problem.to_string() }
    }
}

/// The contents of a cache. Only a run with the same inputs may use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheManifest {
    version: u32,
    /// Shape of the teacher.
    pub spec: VitSpec,
    /// Identity of the teacher.
    pub teacher: String,
    /// The images.
    pub dataset: String,
    /// The recipe. Seed, stages, held-out images and taps must match a run's; the rest may differ.
    pub recipe: Recipe,
    /// Number format.
    pub compression: Compression,
    /// Steps of a shard.
    pub shard_steps: u64,
}

impl CacheManifest {
    /// The manifest of a new cache.
    pub fn new(
        spec: VitSpec,
        teacher: String,
        dataset: String,
        recipe: Recipe,
        compression: Compression,
    ) -> Self {
        let shard_steps = shard_steps(&spec, &recipe, compression);
        Self { version: VERSION, spec, teacher, dataset, recipe, compression, shard_steps }
    }

    /// Reads the manifest of a folder; `None` if there is none.
    ///
    /// # Errors
    /// A file that cannot be read or is no manifest.
    pub fn read(folder: &Path) -> Result<Option<Self>, CacheError> {
        let path = folder.join(MANIFEST);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(CacheError::file("read", &path))?,
        };
        let mut value: Value =
            serde_json::from_str(&text).map_err(|error| CacheError::format(&path, error))?;
        value.get_mut("recipe").into_iter().for_each(upgrade_taps);
        let manifest: Self =
            serde_json::from_value(value).map_err(|error| CacheError::format(&path, error))?;
        if manifest.version != VERSION {
            let problem = format!("version: expected {VERSION}, got {}", manifest.version);
            return Err(CacheError::format(&path, problem));
        }
        if manifest.shard_steps == 0 {
            return Err(CacheError::format(&path, "shard_steps: expected at least 1, got 0"));
        }
        manifest.spec.validate().map_err(|error| CacheError::format(&path, error))?;
        Ok(Some(manifest))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), CacheError> {
        let path = folder.join(MANIFEST);
        let text = serde_json::to_string_pretty(self).map_err(|error| CacheError::format(&path, error))?;
        crate::files::write_bytes(&path, text.as_bytes()).map_err(CacheError::file("write", &path))
    }

    /// Checks that a run with these inputs may use the cache.
    ///
    /// # Errors
    /// [`CacheError::Other`].
    pub fn check(
        &self,
        folder: &Path,
        teacher: &str,
        dataset: &str,
        recipe: &Recipe,
    ) -> Result<(), CacheError> {
        let seen = |recipe: &Recipe| {
            // The number of parts of a step does not change the views.
            let stages = recipe.stages.iter().map(|stage| Stage { accumulate: 1, ..stage.clone() });
            (recipe.seed, recipe.validation_images, stages.collect::<Vec<_>>())
        };
        let taps =
            |recipe: &Recipe| recipe.loss.taps.iter().map(|pair| pair.teacher_block).collect::<Vec<_>>();
        let differs = [
            ("teacher", teacher != self.teacher),
            ("images", dataset != self.dataset),
            ("views (seed, stages, validation_images)", seen(recipe) != seen(&self.recipe)),
            ("taps", taps(recipe) != taps(&self.recipe)),
        ];
        match differs.into_iter().find(|(_, differs)| *differs) {
            Some((what, _)) => Err(CacheError::Other { what, path: folder.into() }),
            None => Ok(()),
        }
    }
}

/// The shard that begins with a step.
pub(super) fn shard_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("targets-{first:09}.safetensors"))
}

/// As many steps as [`SHARD_BYTES`] take at the recipe's largest views; one at least.
fn shard_steps(spec: &VitSpec, recipe: &Recipe, compression: Compression) -> u64 {
    let token_bytes = match compression {
        Compression::F16 => 2 * spec.dim,
        Compression::Int8 => spec.dim.min(MAX_COMPONENTS) + 2,
    };
    let of_stage = |stage: &Stage| {
        let sides = stage.views.teacher_sizes_px.as_ref().unwrap_or(&stage.views.sizes_px);
        let patches = sides.iter().max().map_or(0, |side| (side / spec.patch_size).pow(2));
        stage.batch * patches * (1 + recipe.loss.taps.len()) * token_bytes
    };
    let largest = recipe.stages.iter().map(of_stage).max().unwrap_or(0).max(1) as u64;
    (SHARD_BYTES / largest).clamp(1, MOST_SHARD_STEPS)
}

pub(super) fn held_out_path(folder: &Path) -> PathBuf {
    folder.join("held-out.safetensors")
}
