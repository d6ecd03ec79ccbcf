//! Writes model files: of weights that were trained, and of another model's with other numbers in some of its tensors.

use std::collections::BTreeMap;
use std::path::Path;

use crate::layout::{SCALE_SUFFIX, ZERO_SUFFIX, slots};
use crate::metadata::Quantisation;
use crate::storage::encode_f32;
use crate::writer::ModelWriter;
use crate::{ConvertError, Int4Groups, Int8Rows, Metadata, Model, ModelError, Storage, StoredDtype};

/// What stands in for a tensor of the original model.
#[derive(Clone, Debug)]
pub enum Replacement {
    /// For a tensor that stays f32, row-major.
    F32(Vec<f32>),
    /// For a matrix.
    Int8(Int8Rows),
    /// For a matrix, where the quantisation has groups of this size.
    Int4(Int4Groups),
}

/// Writes a model file in f32 of weights in memory. `tensor` is asked for each tensor of the metadata's shape, row-major;
/// `None` leaves an optional one out.
///
/// # Errors
/// The file cannot be written, or a tensor has another length than its shape says or is missing.
pub fn write_f32(
    metadata: &Metadata,
    tensor: &mut dyn FnMut(&str) -> Option<Vec<f32>>,
    path: &Path,
) -> Result<(), ConvertError> {
    let metadata = Metadata { storage: Storage::F32, quantisation: None, ..metadata.clone() };
    let mut planned = Vec::new();
    let mut tensors = Vec::new();
    for slot in slots(&metadata.spec) {
        match tensor(&slot.name) {
            None if slot.optional => {}
            Some(numbers) if numbers.len() == slot.len() => {
                tensors.push((slot.name.clone(), numbers));
                planned.push((slot, StoredDtype::F32));
            }
            got => {
                let got = got.map_or("nothing".into(), |numbers| format!("{} numbers", numbers.len()));
                return Err(ModelError::Tensor {
                    tensor: slot.name,
                    expected: format!("numbers of shape {:?}", slot.shape),
                    got,
                    path: path.display().to_string(),
                }
                .into());
            }
        }
    }
    let mut writer = ModelWriter::create(path, &metadata, &planned)?;
    for (name, numbers) in &tensors {
        writer.write(name, &encode_f32(numbers))?;
    }
    writer.finish()
}

/// Writes `model` with int8 matrices, or int4 ones where `quantisation` has groups: the replacements, and the rest as
/// [`Model::int8`] gives it.
///
/// # Errors
/// The file cannot be written, or a tensor of the model cannot be read.
///
/// # Panics
/// When a replacement does not have the form and length of what it replaces.
pub fn write_quantised(
    model: &Model,
    replacements: &BTreeMap<String, Replacement>,
    quantisation: Quantisation,
    path: &Path,
) -> Result<(), ConvertError> {
    let storage = if quantisation.int4_group.is_some() { Storage::Int4 } else { Storage::Int8 };
    let metadata = Metadata { storage, quantisation: Some(quantisation), ..model.metadata().clone() };
    let present = slots(model.spec()).into_iter().filter(|slot| model.tensor(&slot.name).is_ok());
    let planned: Vec<_> = present
        .map(|slot| {
            let dtype = match replacements.get(&slot.name) {
                Some(Replacement::Int4(groups)) => StoredDtype::Int4 { group: groups.group },
                _ if slot.matrix => StoredDtype::I8,
                _ => StoredDtype::F32,
            };
            (slot, dtype)
        })
        .collect();
    let mut writer = ModelWriter::create(path, &metadata, &planned)?;
    for (slot, _) in &planned {
        let name = slot.name.as_str();
        match (slot.matrix, replacements.get(name)) {
            (true, Some(Replacement::Int8(rows))) => write_rows(&mut writer, name, rows)?,
            (true, Some(Replacement::Int4(groups))) => write_groups(&mut writer, name, groups)?,
            (true, None) => write_rows(&mut writer, name, &model.int8(name)?)?,
            (false, Some(Replacement::F32(values))) => writer.write(name, &encode_f32(values))?,
            (false, None) => writer.write(name, &encode_f32(&model.f32(name)?))?,
            (matrix, Some(_)) => panic!("{name}: a replacement of the wrong form, matrix {matrix}"),
        }
    }
    writer.finish()
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
