//! Models and devices as the command line names them.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use candle_core::{DType, Device};
use dinov2_cpu::{CpuConfig, CpuPrecision};
use dinov2_files::chain;
use dinov2_weights::{Model, Storage};
use sha2::{Digest, Sha256};

use training::distill::DistillError;
use training::eval::ModelChoice;
use training::loss::StandardiseError;
use training::parallel::Launch;
use training::prune::PruneError;
use training::teacher::{CacheError, EngineTeacher, Teacher, TeacherError, VitTeacher};

/// Opens a device by name. `cuda` without a number is the GPU of this process's local rank.
pub(super) fn device(name: &str, launch: Option<&Launch>) -> anyhow::Result<Device> {
    let cuda = |index: usize| {
        if !cfg!(feature = "cuda") {
            bail!("device {name}: expected a program built with --features cuda, got one without");
        }
        Device::new_cuda(index).with_context(|| format!("device {name}"))
    };
    match name.split_once(':') {
        None if name == "cpu" => Ok(Device::Cpu),
        None if name == "cuda" => cuda(launch.map_or(0, |launch| launch.local_rank)),
        Some(("cuda", index)) if index.parse::<usize>().is_ok() => cuda(index.parse()?),
        _ => bail!("device: expected cpu, cuda or cuda:N, got {name:?}"),
    }
}

/// A teacher's model file and precision.
pub(super) struct TeacherModel {
    pub(super) model: Model,
    precision: Option<CpuPrecision>,
}

impl TeacherModel {
    /// Opens the file that the command line names.
    pub(super) fn open(choice: &ModelChoice) -> anyhow::Result<Self> {
        Ok(Self { model: Model::open(choice.path())?, precision: choice.precision() })
    }

    /// A model that is its own teacher.
    pub(super) fn itself(model: &Model) -> Self {
        Self { model: model.clone(), precision: None }
    }

    /// The teacher on a device. On a CPU: the runtime's engine, in int8 for a quantized file (f32 would not be more accurate) and f32
    /// for others. On a GPU: candle in bf16.
    pub(super) fn teacher(&self, blocks: &[usize], device: &Device) -> anyhow::Result<Box<dyn Teacher>> {
        if !matches!(device, Device::Cpu) {
            let dtype = match self.precision {
                None | Some(CpuPrecision::Half) => DType::BF16,
                Some(CpuPrecision::F32) => DType::F32,
                Some(CpuPrecision::Int8) => bail!("--teacher: expected f32 or half on a GPU, got int8"),
            };
            return Ok(Box::new(VitTeacher::new(&self.model, dtype, blocks, device)?));
        }
        let in_integers = matches!(self.model.metadata().storage, Storage::Int8 | Storage::Int4);
        let mut config = CpuConfig::default();
        config.precision = match self.precision {
            Some(precision) => precision,
            None if in_integers => CpuPrecision::Int8,
            None => CpuPrecision::F32,
        };
        Ok(Box::new(EngineTeacher::new(&self.model, config, blocks, device)?))
    }

    /// Identity in checkpoints and caches: a hash of the file's header and some weights, and the precision if it was given.
    pub(super) fn identity(&self) -> anyhow::Result<String> {
        let mut hash = Sha256::new();
        hash.update(self.model.header_bytes());
        for name in ["cls_token", "norm.weight", "blocks.0.attn.qkv.bias"] {
            hash.update(self.model.tensor(name)?.bytes);
        }
        let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(self.precision.map_or(hash.clone(), |precision| format!("{hash}:{precision:?}")))
    }
}

/// Adds the recipe's path to errors that a change of the recipe would fix.
pub(super) fn with_recipe_path(error: impl Into<anyhow::Error>, recipe: &Path) -> anyhow::Error {
    let error = error.into();
    let teachers =
        |error: &TeacherError| matches!(error, TeacherError::Block { .. } | TeacherError::Side { .. });
    let of_run = error.downcast_ref().is_some_and(|error| match error {
        DistillError::Student(_)
        | DistillError::Memory { .. }
        | DistillError::Standardise(StandardiseError::Width(_)) => true,
        DistillError::Prune(error) => matches!(**error, PruneError::Shape(_)),
        DistillError::Teacher(error) => teachers(error),
        _ => false,
    });
    let of_cache = error.downcast_ref().is_some_and(|error| match error {
        CacheError::NothingHeldOut => true,
        CacheError::Teacher(error) => teachers(error),
        _ => false,
    });
    let of_teacher = error.downcast_ref().is_some_and(teachers);
    if of_run || of_cache || of_teacher {
        anyhow!("{}: {}", chain(error.as_ref()), recipe.display())
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_apart_from_what_is_none() {
        assert!(matches!(device("cpu", None).unwrap(), Device::Cpu));
        for name in ["gpu", "cuda:", "cuda:one", "cpu:0"] {
            let message = device(name, None).unwrap_err().to_string();
            assert_eq!(message, format!("device: expected cpu, cuda or cuda:N, got {name:?}"));
        }
        if !cfg!(feature = "cuda") {
            assert!(device("cuda:1", None).unwrap_err().to_string().contains("--features cuda"));
        }
    }
}
