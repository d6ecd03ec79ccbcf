//! Writes a model file anew with other numbers in some of its tensors.

use std::collections::BTreeMap;
use std::path::Path;

use crate::layout::slots;
use crate::metadata::Quantisation;
use crate::model::SCALE_SUFFIX;
use crate::storage::{Int8Rows, encode_f32};
use crate::writer::ModelWriter;
use crate::{ConvertError, Metadata, Model, Storage};

/// What stands in for a tensor of the original model.
#[derive(Clone, Debug)]
pub enum Replacement {
    /// For a tensor that stays f32, row-major.
    F32(Vec<f32>),
    /// For a matrix.
    Int8(Int8Rows),
}

/// Writes `model` with int8 matrices: the replacements, and the rest as [`Model::int8`] gives it.
///
/// # Errors
/// The file cannot be written, or a tensor of the model cannot be read.
///
/// # Panics
/// When a replacement does not have the form and length of what it replaces.
pub fn write_int8(
    model: &Model,
    replacements: &BTreeMap<String, Replacement>,
    quantisation: Option<Quantisation>,
    path: &Path,
) -> Result<(), ConvertError> {
    let metadata = Metadata { storage: Storage::Int8, quantisation, ..model.metadata().clone() };
    let present: Vec<_> =
        slots(model.spec()).into_iter().filter(|slot| model.tensor(&slot.name).is_ok()).collect();
    let mut writer = ModelWriter::create(path, &metadata, &present)?;
    for slot in &present {
        let name = slot.name.as_str();
        match (slot.matrix, replacements.get(name)) {
            (true, Some(Replacement::Int8(rows))) => write_rows(&mut writer, name, rows)?,
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
