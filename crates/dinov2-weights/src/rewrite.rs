//! Model files out of numbers in memory: trained weights, or another model with some tensors replaced.
//!
//! Numbers are written in the form that they have; nothing is rounded here.

use std::collections::BTreeMap;

use dinov2_files::Target;

use crate::layout::slots;
use crate::metadata::Quantization;
use crate::writer::{ModelWriter, Numbers};
use crate::{ConvertError, Metadata, Model, ModelError, Storage, StoredDtype};

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
        writer.write_numbers(&slot.name, numbers)?;
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
    let mut planned = Vec::new();
    for slot in present {
        let dtype = match replacements.get(&slot.name) {
            Some(numbers) => {
                let dtype = numbers.dtype();
                assert_eq!(slot.matrix, dtype != StoredDtype::F32, "{}: a replacement in {dtype}", slot.name);
                dtype
            }
            None if slot.matrix => StoredDtype::I8,
            None => StoredDtype::F32,
        };
        planned.push((slot, dtype));
    }
    let mut writer = ModelWriter::create(&output.into(), &metadata, &planned)?;
    for (slot, _) in &planned {
        let name = slot.name.as_str();
        let kept;
        let numbers = match replacements.get(name) {
            Some(numbers) => numbers,
            None if slot.matrix => {
                kept = Numbers::Int8(model.int8(name)?);
                &kept
            }
            None => {
                kept = Numbers::F32(model.f32(name)?);
                &kept
            }
        };
        writer.write_numbers(name, numbers)?;
    }
    writer.finish()
}
