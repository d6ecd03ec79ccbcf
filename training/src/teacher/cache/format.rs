use std::path::{Path, PathBuf};

use dinov2_core::VitSpec;
use serde::{Deserialize, Serialize};

use super::Compression;
use crate::data::DataError;
use crate::recipe::Recipe;
use crate::teacher::TeacherError;

/// Version of the folder's form.
const VERSION: u32 = 2;
/// Steps of a shard.
pub(super) const SHARD_STEPS: u64 = 64;
const MANIFEST: &str = "cache.json";

/// Why features cannot be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Images.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The teacher.
    #[error(transparent)]
    Teacher(#[from] TeacherError),
    /// The device.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A file.
    #[error("{what}: {reason}: {}", path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Reason.
        reason: std::io::Error,
    },
    /// A file that is no part of a cache.
    #[error("cache: {problem}: {}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A cache of something else.
    #[error("cache: expected the {what} of this run, got another's: {}", path.display())]
    Other {
        /// What differs.
        what: &'static str,
        /// The folder.
        path: PathBuf,
    },
}

impl CacheError {
    pub(super) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |reason| Self::File { what, path, reason }
    }

    pub(super) fn format(path: &Path, problem: impl ToString) -> Self {
        Self::Format { path: path.into(), problem: problem.to_string() }
    }
}

/// What a cache is of. Only a run that would compute the same may use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheManifest {
    version: u32,
    /// Shape of the teacher.
    pub spec: VitSpec,
    /// The teacher's weights.
    pub teacher: String,
    /// The images.
    pub dataset: String,
    /// Seed, stages and held-out images decide what is seen; the rest of the recipe is free.
    pub recipe: Recipe,
    /// Form of the numbers.
    pub compression: Compression,
}

impl CacheManifest {
    /// Of a cache in the making.
    pub fn new(
        spec: VitSpec,
        teacher: String,
        dataset: String,
        recipe: Recipe,
        compression: Compression,
    ) -> Self {
        Self { version: VERSION, spec, teacher, dataset, recipe, compression }
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
        let manifest: Self = serde_json::from_str(&text).map_err(|error| CacheError::format(&path, error))?;
        if manifest.version != VERSION {
            let problem = format!("version: expected {VERSION}, got {}", manifest.version);
            return Err(CacheError::format(&path, problem));
        }
        manifest.spec.validate().map_err(|error| CacheError::format(&path, error))?;
        Ok(Some(manifest))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), CacheError> {
        let path = folder.join(MANIFEST);
        let text = serde_json::to_string_pretty(self).map_err(|error| CacheError::format(&path, error))?;
        crate::files::write_whole(&path, text.as_bytes()).map_err(CacheError::file("write", &path))
    }

    /// Refuses a cache of which a run with these would not see the same.
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
        let seen = |recipe: &Recipe| (recipe.seed, recipe.validation_images, recipe.stages.clone());
        let taps = |recipe: &Recipe| recipe.loss.taps.iter().map(|pair| pair.teacher).collect::<Vec<_>>();
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

/// The shard of a step.
pub(super) fn shard_path(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("targets-{:09}.safetensors", step - step % SHARD_STEPS))
}

pub(super) fn held_out_path(folder: &Path) -> PathBuf {
    folder.join("held-out.safetensors")
}
