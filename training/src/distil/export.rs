use std::path::Path;

use candle_core::DType;
use dinov2_core::VitSpec;
use dinov2_weights::{Metadata, Preprocessing, Provenance, SourceFormat, Storage, write_f32};

use super::DistilError;
use crate::vit::Parameters;

/// What a student's file says about it.
#[derive(Clone, Debug)]
pub struct StudentCard {
    /// What it was distilled from.
    pub source: String,
    /// Licence of its weights.
    pub licence: Option<String>,
    /// How it was made.
    pub notes: String,
    /// Its pixels' normalisation: the teacher's.
    pub preprocessing: Preprocessing,
}

/// Writes a model file in f32.
///
/// # Errors
/// A file that cannot be written.
pub fn write_student(
    spec: &VitSpec,
    parameters: &Parameters,
    card: &StudentCard,
    path: &Path,
) -> Result<(), DistilError> {
    let metadata = Metadata {
        format_version: dinov2_weights::FORMAT_VERSION,
        spec: spec.clone(),
        storage: Storage::F32,
        quantisation: None,
        preprocessing: card.preprocessing,
        provenance: Provenance {
            source: card.source.clone(),
            source_format: SourceFormat::Training,
            licence: card.licence.clone(),
            notes: Some(card.notes.clone()),
            converter: format!("training {}", env!("CARGO_PKG_VERSION")),
        },
    };
    let numbers = |name: &str| -> Option<Vec<f32>> {
        let tensor = parameters.get(name).ok()?.to_dtype(DType::F32).ok()?;
        tensor.flatten_all().ok()?.to_vec1().ok()
    };
    Ok(write_f32(&metadata, &mut |name| numbers(name), path)?)
}
