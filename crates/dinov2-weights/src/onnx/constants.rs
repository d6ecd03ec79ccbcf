//! Constants of a graph as tensors of a checkpoint: inside the file, as typed lists or raw bytes, or in an
//! external data file beside it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::proto::{TensorProto, data_location, data_type};
use crate::checkpoint::{SourceDtype, SourceTensor, map_file};

/// Longest shape or index list that is read.
const MAX_INTEGERS: usize = 64;

/// Reads the constants of one file.
pub(super) struct Constants {
    /// Folder of the ONNX file, the only one that external data may lie in.
    folder: Option<PathBuf>,
    mapped: RefCell<HashMap<String, Bytes>>,
}

impl Constants {
    pub(super) fn new(folder: Option<&Path>) -> Self {
        Self { folder: folder.map(Path::to_path_buf), mapped: RefCell::default() }
    }

    /// The tensor in its stored shape.
    pub(super) fn tensor(&self, tensor: &TensorProto) -> Result<SourceTensor, String> {
        self.read(tensor).map_err(|problem| named(tensor, &problem))
    }

    /// A stored matrix seen transposed.
    pub(super) fn transposed(&self, tensor: &TensorProto) -> Result<SourceTensor, String> {
        let read = || {
            let stored: [usize; 2] =
                shape(tensor)?.try_into().map_err(|got| format!("expected a matrix, got {got:?}"))?;
            let (dtype, data) = self.data(tensor)?;
            SourceTensor::transposed(dtype, stored, data)
        };
        read().map_err(|problem| named(tensor, &problem))
    }

    fn read(&self, tensor: &TensorProto) -> Result<SourceTensor, String> {
        let (dtype, data) = self.data(tensor)?;
        SourceTensor::contiguous(dtype, shape(tensor)?, data)
    }

    fn data(&self, tensor: &TensorProto) -> Result<(SourceDtype, Bytes), String> {
        let dtype = match tensor.data_type {
            data_type::FLOAT => SourceDtype::F32,
            data_type::FLOAT16 => SourceDtype::F16,
            data_type::BFLOAT16 => SourceDtype::Bf16,
            data_type::DOUBLE => SourceDtype::F64,
            other => return Err(format!("expected float weights, got ONNX data type {other}")),
        };
        if tensor.data_location == data_location::EXTERNAL {
            return Ok((dtype, self.external(tensor)?));
        }
        let data = match dtype {
            _ if !tensor.raw_data.is_empty() => tensor.raw_data.clone(),
            SourceDtype::F32 => little_endian(&tensor.float_data, |value| value.to_le_bytes()),
            SourceDtype::F64 => little_endian(&tensor.double_data, |value| value.to_le_bytes()),
            SourceDtype::F16 | SourceDtype::Bf16 => {
                little_endian(&tensor.int32_data, |value| (value as u16).to_le_bytes())
            }
        };
        Ok((dtype, data))
    }

    /// Moves what lies in an external file into the tensor itself, still in the file's pages.
    pub(super) fn inline(&self, tensor: &mut TensorProto) -> Result<(), String> {
        if tensor.data_location == data_location::EXTERNAL {
            tensor.raw_data = self.external(tensor).map_err(|problem| named(tensor, &problem))?;
            tensor.data_location = data_location::DEFAULT;
            tensor.external_data.clear();
        }
        Ok(())
    }

    fn external(&self, tensor: &TensorProto) -> Result<Bytes, String> {
        let entry = |key: &str| {
            tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
        };
        let number = |key: &str| {
            let parse = |text: &str| {
                text.parse().map_err(|_| format!("external {key}: expected a number, got {text:?}"))
            };
            entry(key).map(parse).transpose()
        };
        let location = entry("location").ok_or("external data: expected a location, got none")?;
        let data = self.map_external(location)?;
        let offset: usize = number("offset")?.unwrap_or(0);
        let length = match number("length")? {
            Some(length) => length,
            None => data.len().saturating_sub(offset),
        };
        let end = offset.checked_add(length).filter(|&end| end <= data.len());
        let end = end.ok_or_else(|| {
            format!(
                "external data: expected {length} bytes at {offset}, got a file of {} ({location})",
                data.len()
            )
        })?;
        Ok(data.slice(offset..end))
    }

    /// Maps an external data file. Its path is relative and stays within the folder, also through links.
    fn map_external(&self, location: &str) -> Result<Bytes, String> {
        if let Some(data) = self.mapped.borrow().get(location) {
            return Ok(data.clone());
        }
        let folder = self.folder.as_deref();
        let folder = folder.ok_or("external data: expected everything in one file, got a location")?;
        let outside = || format!("external data: expected a file in the model's folder, got {location:?}");
        let inside = Path::new(location).components().all(|part| matches!(part, Component::Normal(_)));
        if location.is_empty() || !inside {
            return Err(outside());
        }
        let missing = |error: std::io::Error| format!("external data {location:?}: {error}");
        let path = folder.join(location).canonicalize().map_err(missing)?;
        if !path.starts_with(folder.canonicalize().map_err(missing)?) {
            return Err(outside());
        }
        let data = map_file(&path).map_err(|error| dinov2_files::chain(&error))?;
        self.mapped.borrow_mut().insert(location.into(), data.clone());
        Ok(data)
    }
}

fn named(tensor: &TensorProto, problem: &str) -> String {
    format!("constant {:?}: {problem}", tensor.name)
}

fn little_endian<T: Copy, const SIZE: usize>(values: &[T], bytes: impl Fn(T) -> [u8; SIZE]) -> Bytes {
    values.iter().flat_map(|&value| bytes(value)).collect::<Vec<u8>>().into()
}

/// Shape of a constant.
pub(super) fn shape(tensor: &TensorProto) -> Result<Vec<usize>, String> {
    let side =
        |&side: &i64| usize::try_from(side).map_err(|_| format!("shape: expected sides from 0, got {side}"));
    tensor.dims.iter().map(side).collect()
}

/// Number of elements of a constant; `None` for an impossible shape.
pub(super) fn elements(tensor: &TensorProto) -> Option<usize> {
    shape(tensor).ok()?.iter().try_fold(1usize, |product, &side| product.checked_mul(side))
}

/// The values of a short i64 constant in the file itself.
pub(super) fn integers(tensor: &TensorProto) -> Option<Vec<i64>> {
    if tensor.data_type != data_type::INT64 || tensor.data_location != data_location::DEFAULT {
        return None;
    }
    let values: Vec<i64> = if tensor.raw_data.is_empty() {
        tensor.int64_data.iter().copied().take(MAX_INTEGERS + 1).collect()
    } else {
        let chunks = tensor.raw_data.as_chunks::<8>().0;
        chunks.iter().map(|&bytes| i64::from_le_bytes(bytes)).take(MAX_INTEGERS + 1).collect()
    };
    (values.len() <= MAX_INTEGERS && Some(values.len()) == elements(tensor)).then_some(values)
}
