//! Writes model files: of weights that were trained, and of another model's with other numbers in some of its tensors.

use std::collections::BTreeMap;

use dinov2_files::Target;

use crate::layout::{SCALE_SUFFIX, ZERO_SUFFIX, slots};
use crate::metadata::Quantization;
use crate::storage::encode_f32;
use crate::writer::ModelWriter;
use crate::{ConvertError, Int4Groups, Int8Rows, Metadata, Model, ModelError, Storage, StoredDtype};

/// Numbers of a tensor in the form that a file keeps them in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Numbers {
    /// Row-major.
    F32(Vec<f32>),
    /// Of a matrix.
    Int8(Int8Rows),
    /// Of a matrix, where the quantization has groups of this size.
    Int4(Int4Groups),
}

impl Numbers {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Int8(rows) => rows.values.len(),
            Self::Int4(groups) => groups.values.len(),
        }
    }

    fn dtype(&self) -> StoredDtype {
        match self {
            Self::F32(_) => StoredDtype::F32,
            Self::Int8(_) => StoredDtype::I8,
            Self::Int4(groups) => StoredDtype::Int4 { group: groups.group },
        }
    }
}

/// Writes a model file of numbers in memory. `tensor` is asked for each tensor of the metadata's shape; `None` leaves an
/// optional one out. Where the metadata's storage is int8, matrices are to be [`Numbers::Int8`]; all else is F32.
///
/// # Errors
/// The target refuses, the file cannot be written, or a tensor has another length than its shape says or is missing.
///
/// # Panics
/// When a tensor has another form than the storage says.
pub fn write_model(
    metadata: &Metadata,
    tensor: &mut dyn FnMut(&str) -> Option<Numbers>,
    output: impl Into<Target>,
) -> Result<(), ConvertError> {
    let output = output.into();
    let mut planned = Vec::new();
    let mut tensors = Vec::new();
    for slot in slots(&metadata.spec) {
        match tensor(&slot.name) {
            None if slot.optional => {}
            Some(numbers) if numbers.len() == slot.len() => {
                let is_int8 = matches!(numbers, Numbers::Int8(_));
                let wants_int8 = slot.matrix && metadata.storage == Storage::Int8;
                assert_eq!(
                    is_int8, wants_int8,
                    "{}: int8 or not, in a file of {}",
                    slot.name, metadata.storage
                );
                planned.push((slot, numbers.dtype()));
                tensors.push(numbers);
            }
            got => {
                let got = got.map_or("nothing".into(), |numbers| format!("{} numbers", numbers.len()));
                return Err(ModelError::Tensor {
                    tensor: slot.name,
                    expected: format!("numbers of shape {:?}", slot.shape),
                    got,
                    path: dinov2_files::shown(output.path()),
                }
                .into());
            }
        }
    }
    let mut writer = ModelWriter::create(&output, metadata, &planned)?;
    for ((slot, _), numbers) in planned.iter().zip(&tensors) {
        write_numbers(&mut writer, &slot.name, numbers)?;
    }
    writer.finish()
}

/// Writes `model` with int8 matrices, or int4 ones where `quantization` has groups: the replacements, and the rest as
/// [`Model::int8`] gives it.
///
/// # Errors
/// The target refuses, the file cannot be written, or a tensor of the model cannot be read.
///
/// # Panics
/// When a replacement does not have the form and length of what it replaces.
pub fn write_quantized(
    model: &Model,
    replacements: &BTreeMap<String, Numbers>,
    quantization: Quantization,
    output: impl Into<Target>,
) -> Result<(), ConvertError> {
    let storage = if quantization.int4_group.is_some() { Storage::Int4 } else { Storage::Int8 };
    let metadata = Metadata { storage, quantization: Some(quantization), ..model.metadata().clone() };
    let present = slots(model.spec()).into_iter().filter(|slot| model.tensor(&slot.name).is_ok());
    let planned: Vec<_> = present
        .map(|slot| {
            let kept = if slot.matrix { StoredDtype::I8 } else { StoredDtype::F32 };
            let dtype = replacements.get(&slot.name).map_or(kept, Numbers::dtype);
            (slot, dtype)
        })
        .collect();
    let mut writer = ModelWriter::create(&output.into(), &metadata, &planned)?;
    for (slot, _) in &planned {
        let name = slot.name.as_str();
        match (slot.matrix, replacements.get(name)) {
            (true, Some(numbers @ (Numbers::Int8(_) | Numbers::Int4(_))))
            | (false, Some(numbers @ Numbers::F32(_))) => {
                write_numbers(&mut writer, name, numbers)?;
            }
            (true, None) => write_rows(&mut writer, name, &model.int8(name)?)?,
            (false, None) => writer.write(name, &encode_f32(&model.f32(name)?))?,
            (matrix, Some(_)) => panic!("{name}: a replacement of the wrong form, matrix {matrix}"),
        }
    }
    writer.finish()
}

fn write_numbers(writer: &mut ModelWriter, name: &str, numbers: &Numbers) -> Result<(), ConvertError> {
    match numbers {
        Numbers::F32(values) => writer.write(name, &encode_f32(values)),
        Numbers::Int8(rows) => write_rows(writer, name, rows),
        Numbers::Int4(groups) => write_groups(writer, name, groups),
    }
}

fn write_rows(writer: &mut ModelWriter, name: &str, rows: &Int8Rows) -> Result<(), ConvertError> {
    let bytes: Vec<u8> = rows.values.iter().map(|&value| value as u8).collect();
    writer.write(name, &bytes)?;
    writer.write(&format!("{name}{SCALE_SUFFIX}"), &encode_f32(&rows.scale))
}

fn write_groups(writer: &mut ModelWriter, name: &str, groups: &Int4Groups) -> Result<(), ConvertError> {
    writer.write(name, &groups.packed())?;
    writer.write(&format!("{name}{SCALE_SUFFIX}"), &groups.scale_bytes())?;
    writer.write(&format!("{name}{ZERO_SUFFIX}"), &groups.zero)
}
