//! Checkpoints of a run: written tensor by tensor under a temporary name, the last two are kept.
//!
//! Data shape: a safetensors file in f32 with `weights.*`, `average.*`, `moments.{0,1}.*` and `standardise.*`; recipe, step, dataset and
//! teacher as JSON in the metadata.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::{fs, io};

use candle_core::{DType, Device, Tensor, Var};
use safetensors::tensor::View;
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DistillError, Learner, RunConfig};
use crate::loss::Standardiser;
use crate::optimise::Average;
use crate::recipe::{Recipe, upgrade_taps};

/// Key of the metadata in a checkpoint.
const METADATA_KEY: &str = "training";
/// Folder of checkpoints in the run's folder.
const FOLDER: &str = "checkpoints";
/// Checkpoints that are kept.
const KEPT: usize = 2;

/// The metadata of a checkpoint. The tensors beside it are weights, averaged weights, moments and standardisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    /// The recipe that it was made with.
    pub recipe: Recipe,
    /// Fingerprint of the dataset.
    pub dataset: String,
    /// Identity of the teacher.
    pub teacher: String,
}

impl Checkpoint {
    /// Writes a checkpoint of a learner to `folder`, under a temporary name until it is whole, and deletes all but the last
    /// two. On failure those before are as they were.
    ///
    /// # Errors
    /// A disk that is full or fails.
    pub fn write(&self, learner: &Learner, folder: &Path) -> Result<PathBuf, DistillError> {
        fs::create_dir_all(folder).map_err(DistillError::file("create", folder))?;
        let path = folder.join(format!("step-{:09}.safetensors", self.step));
        let mut tensors = Vec::new();
        for (name, variable) in learner.student.variables.iter() {
            tensors.push((format!("weights.{name}"), variable.as_tensor().clone()));
        }
        let average = learner.average.weights().iter();
        tensors.extend(average.map(|(name, tensor)| (format!("average.{name}"), tensor.clone())));
        let moments = learner.optimiser.state().into_iter();
        tensors.extend(moments.map(|(name, tensor)| (format!("moments.{name}"), tensor)));
        for (name, standardiser) in learner.objective.standardisers() {
            tensors.push((format!("standardise.{name}.mean"), standardiser.mean.clone()));
            tensors.push((format!("standardise.{name}.matrix"), standardiser.matrix.clone()));
        }
        let text = serde_json::to_string(self).map_err(|error| self.wrong(&path, error))?;
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), text)]);
        let failed = RefCell::new(None);
        let views = tensors.iter().map(|(name, tensor)| (name, Part { tensor, failed: &failed }));
        crate::files::write_by_name(&path, |file| {
            safetensors::serialize_to_file(views, Some(metadata), file).map_err(|error| match error {
                SafeTensorError::IoError(error) => error,
                error => io::Error::other(error),
            })?;
            // A part that failed is missing, so the file must not be kept.
            if failed.borrow().is_some() { Err(io::Error::other("a tensor is missing")) } else { Ok(()) }
        })
        .map_err(|error| match failed.take() {
            Some(failed) => failed,
            None => DistillError::file("write", &path)(error),
        })?;
        for old in checkpoints(folder)?.into_iter().rev().skip(KEPT) {
            fs::remove_file(&old).map_err(DistillError::file("delete", &old))?;
        }
        Ok(path)
    }

    fn wrong(&self, path: &Path, problem: impl ToString) -> DistillError {
        DistillError::Checkpoint { path: path.into(), problem: problem.to_string() }
    }

    /// Reads a checkpoint's metadata and tensors.
    ///
    /// # Errors
    /// A file that cannot be read or is no checkpoint.
    pub fn read(path: &Path) -> Result<(Self, BTreeMap<String, Tensor>), DistillError> {
        let wrong = |problem: String| DistillError::Checkpoint { path: path.into(), problem };
        let bytes = fs::read(path).map_err(DistillError::file("read", path))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| wrong(error.to_string()))?;
        let text = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
        let text = text.ok_or_else(|| wrong(format!("expected metadata {METADATA_KEY:?}, got none")))?;
        let mut value: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        value.get_mut("recipe").into_iter().for_each(upgrade_taps);
        let checkpoint = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != safetensors::Dtype::F32 {
                return Err(wrong(format!("tensor {name:?}: expected F32, got {:?}", view.dtype())));
            }
            let numbers: Vec<f32> = numbers(view.data());
            tensors.insert(name.to_owned(), Tensor::from_vec(numbers, view.shape(), &Device::Cpu)?);
        }
        Ok((checkpoint, tensors))
    }

    /// The standardisations in a checkpoint: of CLS, of patches, of taps.
    ///
    /// # Errors
    /// One that is missing.
    pub fn standardisers(
        path: &Path,
        tensors: &BTreeMap<String, Tensor>,
        taps: usize,
        device: &Device,
    ) -> Result<Vec<Standardiser>, DistillError> {
        let names = ["cls".to_owned(), "patches".to_owned()];
        let names = names.into_iter().chain((0..taps).map(|tap| format!("tap{tap}")));
        let read = |name: String| {
            let get = |part: &str| get(path, tensors, &format!("standardise.{name}.{part}"));
            Ok(Standardiser {
                mean: get("mean")?.to_device(device)?,
                matrix: get("matrix")?.to_device(device)?,
            })
        };
        names.map(read).collect()
    }

    /// Restores a learner from a checkpoint's tensors.
    ///
    /// # Errors
    /// A checkpoint of another student.
    pub fn restore(
        path: &Path,
        mut tensors: BTreeMap<String, Tensor>,
        learner: &mut Learner,
    ) -> Result<(), DistillError> {
        for (name, variable) in learner.student.variables.iter() {
            set(path, &tensors, &format!("weights.{name}"), variable)?;
        }
        let device = learner.student.vit.parameters().get("cls_token")?.device().clone();
        let mut part = |prefix: &str| -> Result<BTreeMap<String, Tensor>, DistillError> {
            let names: Vec<String> =
                tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
            let moved = names.into_iter().filter_map(|name| {
                let tensor = tensors.remove(&name)?;
                Some(tensor.to_device(&device).map(|tensor| (name[prefix.len()..].to_owned(), tensor)))
            });
            Ok(moved.collect::<candle_core::Result<_>>()?)
        };
        learner.average = Average::resume(learner.average.decay(), part("average.")?.into_iter().collect());
        learner.optimiser.restore(part("moments.")?);
        Ok(())
    }
}

fn set(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    name: &str,
    variable: &Var,
) -> Result<(), DistillError> {
    let tensor = get(path, tensors, name)?;
    if tensor.shape() != variable.shape() {
        let problem = format!("tensor {name:?}: expected {:?}, got {:?}", variable.dims(), tensor.dims());
        return Err(DistillError::Checkpoint { path: path.into(), problem });
    }
    Ok(variable.set(&tensor.to_device(variable.device())?)?)
}

fn get<'a>(
    path: &Path,
    tensors: &'a BTreeMap<String, Tensor>,
    name: &str,
) -> Result<&'a Tensor, DistillError> {
    tensors.get(name).ok_or_else(|| DistillError::Checkpoint {
        path: path.into(),
        problem: format!("tensor {name:?}: expected one, got none"),
    })
}

/// The newest checkpoint of a run.
///
/// # Errors
/// A folder that cannot be listed.
pub fn latest_checkpoint(folder: &Path) -> Result<Option<PathBuf>, DistillError> {
    if !folder.exists() {
        return Ok(None);
    }
    Ok(checkpoints(folder)?.pop())
}

/// Checkpoints in a folder, oldest first.
fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>, DistillError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(DistillError::file("list", folder))? {
        let path = entry.map_err(DistillError::file("list", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("step-") && name.ends_with(".safetensors") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Where a run in this folder keeps its checkpoints.
pub fn checkpoint_folder(output: &Path) -> PathBuf {
    output.join(FOLDER)
}

/// Steps that a run in this folder has done, by its last checkpoint.
///
/// # Errors
/// A folder or checkpoint that cannot be read.
pub fn steps_done(output: &Path) -> Result<Option<u64>, DistillError> {
    let path = latest_checkpoint(&checkpoint_folder(output))?;
    path.map(|path| Checkpoint::read(&path).map(|(checkpoint, _)| checkpoint.step)).transpose()
}

/// A checkpoint to go on from.
pub(super) struct OpenCheckpoint {
    pub(super) path: PathBuf,
    pub(super) checkpoint: Checkpoint,
    pub(super) tensors: BTreeMap<String, Tensor>,
}

impl OpenCheckpoint {
    /// The last checkpoint of the run in this folder; `None` where there is none.
    ///
    /// # Errors
    /// A checkpoint of another run, or of any run where `config` does not resume; a file that cannot be read.
    pub(super) fn find(config: &RunConfig, dataset: &str) -> Result<Option<Self>, DistillError> {
        let Some(path) = latest_checkpoint(&checkpoint_folder(&config.output))? else { return Ok(None) };
        let wrong = |problem: &str| DistillError::Checkpoint { path: path.clone(), problem: problem.into() };
        if !config.resume {
            return Err(wrong("expected a new folder, or --resume to go on"));
        }
        let (checkpoint, tensors) = Checkpoint::read(&path)?;
        if checkpoint.recipe != config.recipe {
            return Err(wrong("expected the recipe that the run began with, got another"));
        }
        if checkpoint.dataset != dataset {
            return Err(wrong("expected the images that the run began with, got others"));
        }
        if checkpoint.teacher != config.teacher {
            return Err(wrong("expected the teacher that the run began with, got another"));
        }
        Ok(Some(Self { path, checkpoint, tensors }))
    }
}

/// A tensor whose bytes are made while the file is written, so that a checkpoint is never held in memory as a whole.
struct Part<'a> {
    tensor: &'a Tensor,
    /// The first error.
    failed: &'a RefCell<Option<DistillError>>,
}

impl View for Part<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        safetensors::Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.tensor.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = bytes(self.tensor).unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            Vec::new()
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.tensor.elem_count() * size_of::<f32>()
    }
}

fn bytes(tensor: &Tensor) -> Result<Vec<u8>, DistillError> {
    let numbers: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.chunks_exact(4);
    words.map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}
