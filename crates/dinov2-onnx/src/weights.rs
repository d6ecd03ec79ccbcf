//! The weights of a model as ONNX constants: matrices turned to `[in, out]`, the order in which MatMul takes them, and
//! everything in the precision of the export. They lie in the file itself or stream into an external data file.

use std::collections::BTreeMap;
use std::io::{self, Write};

use dinov2_core::{MlpKind, VitSpec};
use dinov2_weights::onnx::proto::{StringStringEntryProto, TensorProto, data_location, data_type};
use dinov2_weights::{Model, ModelError};
use half::f16;

use crate::{OnnxError, Precision};

/// External tensors begin at multiples of this, the size of a page, so that runtimes can map them.
const EXTERNAL_ALIGNMENT: u64 = 4096;
/// Side of the square in which a matrix is transposed: two squares of f32 fit into the L1 cache.
const TRANSPOSE_SIDE: usize = 32;

/// A model's weights as constants, under the names of the model file. Cloning a constant copies no numbers.
pub(crate) struct OnnxWeights {
    pub(crate) spec: VitSpec,
    pub(crate) precision: Precision,
    constants: BTreeMap<String, TensorProto>,
}

impl OnnxWeights {
    /// Every weight but the position table, within the file.
    pub(crate) fn embedded(model: &Model, precision: Precision) -> Result<Self, OnnxError> {
        Self::collect(model, precision, |tensor, values| {
            tensor.raw_data = little_endian(&values, tensor.data_type).into();
            Ok(())
        })
    }

    /// Every weight but the position table, written to `data`, which lies beside the ONNX file as `location`.
    pub(crate) fn external(
        model: &Model,
        precision: Precision,
        data: &mut dyn Write,
        location: &str,
    ) -> Result<Self, OnnxError> {
        let mut offset = 0u64;
        let refused = |source| OnnxError::Io { action: "write", path: location.into(), source };
        Self::collect(model, precision, |tensor, values| {
            let bytes = little_endian(&values, tensor.data_type);
            tensor.data_location = data_location::EXTERNAL;
            tensor.external_data = external_entries(location, offset, bytes.len());
            offset += append_padded(data, &bytes).map_err(refused)?;
            Ok(())
        })
    }

    fn collect(
        model: &Model,
        precision: Precision,
        mut store: impl FnMut(&mut TensorProto, Vec<f32>) -> Result<(), OnnxError>,
    ) -> Result<Self, OnnxError> {
        let spec = model.spec().clone();
        let mut constants = BTreeMap::new();
        for name in names(&spec) {
            let (dims, values) = read(model, &name)?;
            let data_type = if precision == Precision::F16 && is_linear(&name) {
                data_type::FLOAT16
            } else {
                data_type::FLOAT
            };
            if data_type == data_type::FLOAT16 {
                check_f16(&name, &values, model.label())?;
            }
            let dims = dims.iter().map(|&side| side as i64).collect();
            let mut tensor = TensorProto { name: name.clone(), dims, data_type, ..TensorProto::default() };
            store(&mut tensor, values)?;
            constants.insert(name, tensor);
        }
        Ok(Self { spec, precision, constants })
    }

    /// The constant of this name.
    ///
    /// # Errors
    /// A name that the model does not have; only a mistake of this crate leads here.
    pub(crate) fn constant(&self, name: &str) -> Result<TensorProto, OnnxError> {
        let missing = || OnnxError::Export(format!("export: expected the weight {name:?}, got none"));
        self.constants.get(name).cloned().ok_or_else(missing)
    }
}

/// Bytes of all weights in this precision, roughly.
pub(crate) fn estimated_bytes(spec: &VitSpec, precision: Precision) -> usize {
    let size = match precision {
        Precision::F32 => 4,
        Precision::F16 => 2,
    };
    spec.parameters().saturating_mul(size)
}

/// Every weight of a model but the position table and the mask token.
fn names(spec: &VitSpec) -> Vec<String> {
    let mut names: Vec<String> =
        ["cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"]
            .map(String::from)
            .into();
    if spec.registers > 0 {
        names.push("register_tokens".into());
    }
    let mlp = match spec.mlp {
        MlpKind::Gelu => ["mlp.fc1", "mlp.fc2"],
        MlpKind::SwiGlu => ["mlp.w12", "mlp.w3"],
    };
    for block in 0..spec.depth {
        for part in ["norm1", "attn.qkv", "attn.proj", "norm2"].into_iter().chain(mlp) {
            names.extend(["weight", "bias"].map(|field| format!("blocks.{block}.{part}.{field}")));
        }
        if spec.layer_scale {
            names.extend(["ls1", "ls2"].map(|part| format!("blocks.{block}.{part}.gamma")));
        }
    }
    names
}

/// Whether a weight belongs to a linear layer (the patch embedding included), which f16 exports compute in f16.
fn is_linear(name: &str) -> bool {
    [".qkv.", ".proj.", ".fc1.", ".fc2.", ".w12.", ".w3."].iter().any(|part| name.contains(part))
}

/// A weight in ONNX's shape.
fn read(model: &Model, name: &str) -> Result<(Vec<usize>, Vec<f32>), ModelError> {
    let values = model.f32(name)?;
    match *model.tensor(name)?.shape {
        [rows, columns] => Ok((vec![columns, rows], transposed(&values, rows, columns))),
        ref shape => Ok((shape.to_vec(), values)),
    }
}

/// `values: [rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for top in (0..rows).step_by(TRANSPOSE_SIDE) {
        for left in (0..columns).step_by(TRANSPOSE_SIDE) {
            for row in top..rows.min(top + TRANSPOSE_SIDE) {
                for column in left..columns.min(left + TRANSPOSE_SIDE) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}

fn check_f16(name: &str, values: &[f32], path: &str) -> Result<(), OnnxError> {
    let most = f16::MAX.to_f32();
    match values.iter().find(|value| value.abs() > most) {
        None => Ok(()),
        Some(value) => Err(OnnxError::Export(format!(
            "tensor {name:?}: expected weights within {most} to export them as f16, got {value} in {path}"
        ))),
    }
}

pub(crate) fn little_endian(values: &[f32], data_type: i32) -> Vec<u8> {
    match data_type {
        data_type::FLOAT16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

fn external_entries(location: &str, offset: u64, length: usize) -> Vec<StringStringEntryProto> {
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    vec![
        entry("location", location.into()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ]
}

/// Writes `bytes` and zeros up to the next aligned offset; returns how much was written.
fn append_padded(data: &mut dyn Write, bytes: &[u8]) -> io::Result<u64> {
    let padded = (bytes.len() as u64).next_multiple_of(EXTERNAL_ALIGNMENT);
    data.write_all(bytes)?;
    let zeros = [0; EXTERNAL_ALIGNMENT as usize];
    data.write_all(&zeros[..padded as usize - bytes.len()])?;
    Ok(padded)
}
