//! Reads safetensors checkpoints: one file, or a folder as Hugging Face and timm lay it out.
//!
//! A folder holds `model.safetensors`, or shards named by `model.safetensors.index.json`, or `pytorch_model.bin`, and
//! its `config.json`. A file of one of these names is read together with the `config.json` beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;

use crate::ConvertError;
use crate::checkpoint::{Checkpoint, Hints, SourceDtype, SourceKind, SourceTensor, map_file};
use crate::config::{hints_of_folder, read_json};
use crate::header::Header;
use crate::pth;

/// Most shards of one checkpoint.
const MAX_SHARDS: usize = 1_024;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PICKLED: &str = "pytorch_model.bin";

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// Reads the tensors of one file.
///
/// # Errors
/// A malformed file.
pub(crate) fn parse(bytes: &Bytes, label: String) -> Result<Checkpoint, ConvertError> {
    let tensors = tensors(bytes).map_err(|problem| ConvertError::invalid(problem, &label))?;
    Ok(Checkpoint { label, kind: SourceKind::Safetensors, tensors, hints: Hints::default() })
}

/// What the `config.json` beside a file says, if the file has the name that goes with it.
pub(crate) fn hints_beside(path: &Path) -> Result<Hints, ConvertError> {
    let usual = path.file_name().is_some_and(|name| name == SINGLE || name == PICKLED);
    match path.parent() {
        Some(folder) if usual => hints_of_folder(folder),
        _ => Ok(Hints::default()),
    }
}

/// Reads a folder.
///
/// # Errors
/// No checkpoint in it, several, or a malformed one.
pub(crate) fn read_folder(folder: &Path) -> Result<Checkpoint, ConvertError> {
    let single = folder.join(SINGLE);
    let pickled = folder.join(PICKLED);
    let checkpoint = if single.is_file() {
        parse(&map_file(&single)?, single.display().to_string())?
    } else if let Some(index) = read_json::<ShardIndex>(&folder.join(INDEX))? {
        read_shards(folder, &index)?
    } else if pickled.is_file() {
        pth::parse(&map_file(&pickled)?, pickled.display().to_string())?
    } else {
        let only = only_safetensors(folder)?;
        parse(&map_file(&only)?, only.display().to_string())?
    };
    Ok(Checkpoint { hints: hints_of_folder(folder)?, ..checkpoint })
}

fn only_safetensors(folder: &Path) -> Result<PathBuf, ConvertError> {
    let entries = std::fs::read_dir(folder).map_err(|source| ConvertError::io("list", folder, source))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    match (found.pop(), found.len()) {
        (Some(path), 0) => Ok(path),
        (last, others) => {
            let count = others + usize::from(last.is_some());
            let problem = format!(
                "checkpoint: expected {SINGLE}, {INDEX} or {PICKLED}, got {count} other .safetensors"
            );
            Err(ConvertError::invalid(problem, folder.display().to_string()))
        }
    }
}

fn read_shards(folder: &Path, index: &ShardIndex) -> Result<Checkpoint, ConvertError> {
    let label = folder.join(INDEX).display().to_string();
    let mut shards: BTreeMap<&str, BTreeMap<String, SourceTensor>> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (name, file) in &index.weight_map {
        if !shards.contains_key(file.as_str()) {
            let plain = Path::new(file).file_name().is_some_and(|name| name == file.as_str());
            if !plain || shards.len() == MAX_SHARDS {
                let problem =
                    format!("shard: expected at most {MAX_SHARDS} files of this folder, got {file:?}");
                return Err(ConvertError::invalid(problem, label));
            }
            let path = folder.join(file);
            let parsed = tensors(&map_file(&path)?);
            let parsed =
                parsed.map_err(|problem| ConvertError::invalid(problem, path.display().to_string()))?;
            shards.insert(file, parsed);
        }
        // A tensor of a type that no backbone holds is not in the shard's list; whether it matters shows later.
        if let Some(tensor) = shards[file.as_str()].get(name) {
            all.insert(name.clone(), tensor.clone());
        }
    }
    Ok(Checkpoint { label, kind: SourceKind::Safetensors, tensors: all, hints: Hints::default() })
}

/// The floating-point tensors of a file.
fn tensors(bytes: &Bytes) -> Result<BTreeMap<String, SourceTensor>, String> {
    let header = Header::parse(bytes)?;
    let mut tensors = BTreeMap::new();
    for (name, entry) in &header.tensors {
        let dtype = match entry.dtype.as_str() {
            "F64" => SourceDtype::F64,
            "F32" => SourceDtype::F32,
            "F16" => SourceDtype::F16,
            "BF16" => SourceDtype::Bf16,
            _ => continue,
        };
        let data = bytes.slice(header.range(entry));
        let tensor = SourceTensor::contiguous(dtype, entry.shape.clone(), data)
            .map_err(|problem| format!("tensor {name:?}: {problem}"))?;
        tensors.insert(name.clone(), tensor);
    }
    Ok(tensors)
}
