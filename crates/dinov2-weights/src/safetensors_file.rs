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
use crate::config::{hints_of_folder, read_json, side_files_in, with_preprocessing};
use crate::header::Header;
use crate::pth;

/// Most shards of one checkpoint.
const MAX_SHARDS: usize = 1_024;
/// Longest name of a number type that a message repeats.
const MAX_TYPE_CHARS: usize = 32;
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PICKLED: &str = "pytorch_model.bin";
const ONNX: &str = "model.onnx";

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
    Ok(checkpoint(label, tensors))
}

/// A checkpoint of which nothing but its tensors is known yet.
fn checkpoint(label: String, Tensors { read: tensors, unread }: Tensors) -> Checkpoint {
    let (kind, hints, notes) = (SourceKind::Safetensors, Hints::default(), Vec::new());
    Checkpoint { label, kind, tensors, unread, hints, notes }
}

/// Adds what the files beside a checkpoint say, if the file has a name that goes with them; otherwise notes that they
/// were not read.
pub(crate) fn with_side_files(path: &Path, checkpoint: Checkpoint) -> Result<Checkpoint, ConvertError> {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Ok(checkpoint),
    };
    let is_named =
        |names: &[&str]| names.iter().any(|name| path.file_name().is_some_and(|file| file == *name));
    let hints = match checkpoint.kind {
        SourceKind::Onnx if is_named(&[ONNX]) => with_preprocessing(folder, checkpoint.hints.clone())?,
        SourceKind::Safetensors | SourceKind::Pth if is_named(&[SINGLE, PICKLED]) => hints_of_folder(folder)?,
        _ => {
            let beside = side_files_in(folder);
            let mut checkpoint = checkpoint;
            if !beside.is_empty() {
                checkpoint.notes.push(format!(
                    "not read: {} beside the checkpoint, whose name tells nothing of belonging to it (name it {SINGLE}, \
                     {PICKLED} or {ONNX}, or convert its folder)",
                    beside.join(", ")
                ));
            }
            return Ok(checkpoint);
        }
    };
    Ok(Checkpoint { hints, ..checkpoint })
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
    let mut shards: BTreeMap<&str, Tensors> = BTreeMap::new();
    let mut all = Tensors::default();
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
        let shard = &shards[file.as_str()];
        if let Some(tensor) = shard.read.get(name) {
            all.read.insert(name.clone(), tensor.clone());
        } else if let Some(dtype) = shard.unread.get(name) {
            all.unread.insert(name.clone(), dtype.clone());
        }
    }
    Ok(checkpoint(label, all))
}

/// The tensors of a file: those of floating-point numbers, and the types of the others.
#[derive(Default)]
struct Tensors {
    read: BTreeMap<String, SourceTensor>,
    unread: BTreeMap<String, String>,
}

fn tensors(bytes: &Bytes) -> Result<Tensors, String> {
    let header = Header::parse(bytes)?;
    let mut tensors = Tensors::default();
    for (name, entry) in &header.tensors {
        let dtype = match entry.dtype.as_str() {
            "F64" => SourceDtype::F64,
            "F32" => SourceDtype::F32,
            "F16" => SourceDtype::F16,
            "BF16" => SourceDtype::Bf16,
            other => {
                tensors.unread.insert(name.clone(), other.chars().take(MAX_TYPE_CHARS).collect());
                continue;
            }
        };
        let data = bytes.slice(header.range(entry));
        let tensor = SourceTensor::contiguous(dtype, entry.shape.clone(), data)
            .map_err(|problem| format!("tensor {name:?}: {problem}"))?;
        tensors.read.insert(name.clone(), tensor);
    }
    Ok(tensors)
}
