//! Models and devices as the command line names them.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use candle_core::{DType, Device};
use dinov2_cpu::{CpuConfig, CpuPrecision};
use dinov2_weights::{Model, Storage};
use sha2::{Digest, Sha256};

use training::distil::DistilError;
use training::loss::StandardiseError;
use training::parallel::Launch;
use training::teacher::{CacheError, EngineTeacher, Teacher, TeacherError, VitTeacher};

/// Opens the device of that name; of several processes on a machine each gets its own GPU, unless one is named.
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

/// A teacher on the device: the runtime's engine on a CPU, candle in bf16 on a GPU.
pub(super) fn teacher(model: &Model, blocks: &[usize], device: &Device) -> anyhow::Result<Box<dyn Teacher>> {
    if !matches!(device, Device::Cpu) {
        return Ok(Box::new(VitTeacher::new(model, DType::BF16, blocks, device)?));
    }
    let mut config = CpuConfig::default();
    // A file in integers has no more to give than the integer engine takes from it.
    if matches!(model.metadata().storage, Storage::Int8 | Storage::Int4) {
        config.precision = CpuPrecision::Int8;
    }
    Ok(Box::new(EngineTeacher::new(model, config, blocks, device)?))
}

/// An error with the recipe's name, where it is the recipe's fault.
pub(super) fn blame_recipe(error: impl Into<anyhow::Error>, recipe: &Path) -> anyhow::Error {
    let error = error.into();
    let teachers =
        |error: &TeacherError| matches!(error, TeacherError::Block { .. } | TeacherError::Side { .. });
    let of_run = error.downcast_ref().is_some_and(|error| match error {
        DistilError::Student(_) | DistilError::Standardise(StandardiseError::Width(_)) => true,
        DistilError::Teacher(error) => teachers(error),
        _ => false,
    });
    let of_cache = error.downcast_ref().is_some_and(|error| match error {
        CacheError::NothingHeldOut => true,
        CacheError::Teacher(error) => teachers(error),
        _ => false,
    });
    let of_teacher = error.downcast_ref().is_some_and(teachers);
    if of_run || of_cache || of_teacher { anyhow!("{error}: {}", recipe.display()) } else { error }
}

/// What tells a model from others: a hash of its header and of some of its weights.
pub(super) fn identity(model: &Model) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    hash.update(model.header_bytes());
    for name in ["cls_token", "norm.weight", "blocks.0.attn.qkv.bias"] {
        hash.update(model.tensor(name)?.bytes);
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_apart_from_what_is_none() {
        assert!(matches!(device("cpu", None).unwrap(), Device::Cpu));
        for name in ["gpu", "cuda:", "cuda:one", "cpu:0"] {
            let told = device(name, None).unwrap_err().to_string();
            assert_eq!(told, format!("device: expected cpu, cuda or cuda:N, got {name:?}"));
        }
        if !cfg!(feature = "cuda") {
            assert!(device("cuda:1", None).unwrap_err().to_string().contains("--features cuda"));
        }
    }
}
