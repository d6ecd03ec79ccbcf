//! A teacher that reads its targets from a cache.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use dinov2_core::{PatchGrid, VitSpec};
use safetensors::{Dtype, SafeTensors};

use super::Compression;
use super::compress::Basis;
use super::format::{CacheError, CacheManifest, held_out_path, shard_path};
use crate::data::Batch;
use crate::loss::Targets;
use crate::recipe::Recipe;
use crate::teacher::{Teacher, TeacherError, views};

/// A teacher whose targets are read from a cache.
pub struct CachedTeacher {
    folder: PathBuf,
    manifest: CacheManifest,
    basis: Option<Basis>,
    /// Path and bytes of the last shard read.
    shard: Option<(PathBuf, Vec<u8>)>,
    held_out: Vec<u8>,
    device: Device,
    /// Rank among the processes that share every batch.
    rank: usize,
}

impl CachedTeacher {
    /// Opens a cache of this teacher for a run of this recipe over these images.
    ///
    /// # Errors
    /// A folder that is no cache, or a cache of other inputs.
    pub fn open(
        folder: &Path,
        teacher: &str,
        recipe: &Recipe,
        dataset: &str,
        device: &Device,
    ) -> Result<Self, CacheError> {
        let Some(manifest) = CacheManifest::read(folder)? else {
            return Err(CacheError::format(folder, "expected a cache (cache.json), got none"));
        };
        manifest.check(folder, teacher, dataset, recipe)?;
        let path = held_out_path(folder);
        let basis = basis(&path, manifest.compression)?;
        let held_out = std::fs::read(&path).map_err(CacheError::file("read", &path))?;
        Ok(Self {
            folder: folder.into(),
            manifest,
            basis,
            shard: None,
            held_out,
            device: device.clone(),
            rank: 0,
        })
    }

    /// For one of several processes that share every batch.
    #[must_use]
    pub fn with_rank(self, rank: usize) -> Self {
        Self { rank, ..self }
    }

    fn step(&mut self, step: u64) -> Result<Targets, CacheError> {
        let path = shard_path(&self.folder, step - step % self.manifest.shard_steps);
        if self.shard.as_ref().is_none_or(|(open, _)| *open != path) {
            let bytes = std::fs::read(&path).map_err(CacheError::file("read", &path))?;
            self.shard = Some((path, bytes));
        }
        match &self.shard {
            Some((path, bytes)) => {
                let taps = self.manifest.recipe.loss.taps.len();
                self.targets_in(path, bytes, &format!("s{step}"), (taps, self.basis.as_ref()))
            }
            None => Err(CacheError::format(&self.folder, "expected a shard, got none")),
        }
    }

    fn targets_in(
        &self,
        path: &Path,
        bytes: &[u8],
        name: &str,
        (taps, basis): (usize, Option<&Basis>),
    ) -> Result<Targets, CacheError> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| CacheError::format(path, error))?;
        let tokens = |part: &str| -> Result<Tensor, CacheError> {
            let tokens = tensor(path, &file, &format!("{name}.{part}"))?;
            match basis {
                None => Ok(tokens),
                Some(basis) => {
                    Ok(basis.decode(&tokens, &tensor(path, &file, &format!("{name}.{part}.scale"))?)?)
                }
            }
        };
        let patches = tokens("patches")?;
        let side = patches.dim(1)?.isqrt();
        let taps = (0..taps).map(|index| tokens(&format!("tap{index}")));
        let taps = taps.map(|tap| Ok(tap?.to_device(&self.device)?)).collect::<Result<_, CacheError>>()?;
        Ok(Targets {
            cls: tensor(path, &file, &format!("{name}.cls"))?.to_device(&self.device)?,
            patches: patches.to_device(&self.device)?,
            taps,
            grid: PatchGrid { rows: side, cols: side },
        })
    }
}

impl Teacher for CachedTeacher {
    fn spec(&self) -> &VitSpec {
        &self.manifest.spec
    }

    fn targets(&mut self, batch: &Batch) -> Result<Targets, TeacherError> {
        let whole = self.step(batch.step).map_err(|error| TeacherError::Cache(Box::new(error)))?;
        let own = batch.samples.len();
        if whole.cls.dim(0)? == own {
            Ok(whole)
        } else {
            Ok(whole.narrow(self.rank * own..(self.rank + 1) * own)?)
        }
    }

    fn held_out(&mut self, batch: &Batch) -> Result<Targets, TeacherError> {
        let path = held_out_path(&self.folder);
        let targets = self.targets_in(&path, &self.held_out, &format!("h{}", batch.step), (0, None));
        let targets = targets.map_err(|error| TeacherError::Cache(Box::new(error)))?;
        let side = views(batch).side_px / self.manifest.spec.patch_size;
        if targets.patches.dims3()?.0 == batch.samples.len() && targets.grid.len() == side * side {
            return Ok(targets);
        }
        let problem =
            "expected the held-out images that can be read now, got others: was one lost or repaired?";
        Err(TeacherError::Cache(Box::new(CacheError::format(&path, problem))))
    }
}

/// The basis of integers, stored with the held-out targets.
pub(super) fn basis(path: &Path, compression: Compression) -> Result<Option<Basis>, CacheError> {
    if compression == Compression::F16 {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(CacheError::file("read", path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| CacheError::format(path, error))?;
    let part = |name: &str| tensor(path, &file, name);
    let has_directions = file.names().contains(&"basis.directions");
    Ok(Some(Basis {
        mean: part("basis.mean")?,
        spread: part("basis.spread")?,
        directions: has_directions.then(|| part("basis.directions")).transpose()?,
    }))
}

/// A tensor of a file, in f32.
fn tensor(path: &Path, file: &SafeTensors<'_>, name: &str) -> Result<Tensor, CacheError> {
    let view = file.tensor(name).map_err(|error| CacheError::format(path, error))?;
    let bytes = view.data();
    let numbers: Vec<f32> = match view.dtype() {
        Dtype::F32 => words(bytes, f32::from_le_bytes).collect(),
        Dtype::F16 => words(bytes, half::f16::from_le_bytes).map(half::f16::to_f32).collect(),
        Dtype::I8 => bytes.iter().map(|&byte| f32::from(byte as i8)).collect(),
        other => {
            let problem = format!("tensor {name:?}: expected F32, F16 or I8, got {other:?}");
            return Err(CacheError::format(path, problem));
        }
    };
    Ok(Tensor::from_vec(numbers, view.shape(), &Device::Cpu)?)
}

fn words<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |word| read(*word))
}
