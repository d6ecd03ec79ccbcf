//! The result of a run: a model file in f32, or in int8 for a student that learnt with roundings.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::DType;
use dinov2_core::statistics::{cosine, quantile, sorted};
use dinov2_core::{Extractor, Features, ImageView, Taps, VitSpec};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision};
use dinov2_weights::{
    Fidelity, Metadata, Model, Numbers, Preprocessing, Provenance, Quantization, SourceFormat, Storage,
    write_model,
};

use super::DistillError;
use crate::data::Pixels;
use crate::qat::Rounding;
use crate::teacher::TeacherError;
use crate::vit::Parameters;

/// Provenance of a student, as its file states it.
#[derive(Clone, Debug)]
pub struct StudentCard {
    /// The model it was distilled from.
    pub source: String,
    /// Licence of its weights.
    pub licence: Option<String>,
    /// Recipe and images.
    pub notes: String,
    /// Preprocessing: the teacher's normalisation.
    pub preprocessing: Preprocessing,
}

impl StudentCard {
    fn metadata(&self, spec: &VitSpec, storage: Storage, quantization: Option<Quantization>) -> Metadata {
        Metadata {
            format_version: dinov2_weights::FORMAT_VERSION,
            spec: spec.clone(),
            storage,
            quantization,
            preprocessing: self.preprocessing,
            provenance: Provenance {
                source: self.source.clone(),
                source_format: SourceFormat::Training,
                licence: self.licence.clone(),
                notes: Some(self.notes.clone()),
                converter: format!("training {}", env!("CARGO_PKG_VERSION")),
            },
        }
    }
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
) -> Result<(), DistillError> {
    let metadata = card.metadata(spec, Storage::F32, None);
    Ok(write_model(&metadata, &mut |name| numbers(parameters, name), path)?)
}

/// Writes an int8 model file of weights trained with these roundings. The cost of the engine's rounding of activations is
/// measured on `measured_on`, images of one or several sizes, and stored in the file. `images`: number of training images.
///
/// # Errors
/// A file that cannot be written, an engine that fails.
pub fn write_int8_student(
    spec: &VitSpec,
    parameters: &Parameters,
    rounding: &Rounding,
    (card, images): (&StudentCard, usize),
    measured_on: &[Pixels],
    path: &Path,
) -> Result<(), DistillError> {
    let mut integers = BTreeMap::new();
    for (name, _) in parameters.iter() {
        if let Some(rows) = rounding.integers(name, parameters)? {
            integers.insert(name.to_owned(), rows);
        }
    }
    let write = |fidelity: Vec<Fidelity>, path: &Path| {
        let quantization = Quantization {
            weight_limit: rounding.limit(),
            int4_group: None,
            calibration_images: u32::try_from(images).unwrap_or(u32::MAX),
            trained: true,
            fidelity,
        };
        let metadata = card.metadata(spec, Storage::Int8, Some(quantization));
        let mut tensor = |name: &str| match integers.get(name) {
            Some(rows) => Some(Numbers::Int8(rows.clone())),
            None => numbers(parameters, name),
        };
        write_model(&metadata, &mut tensor, path)
    };
    let trial = tempfile::tempdir().map_err(DistillError::file("create a temporary folder for", path))?;
    let trial = trial.path().join("student.safetensors");
    write(Vec::new(), &trial)?;
    write(fidelity(&Model::open(&trial)?, measured_on)?, path)?;
    Ok(())
}

/// Fidelity of the int8 engine to the f32 engine with the same numbers, by size.
fn fidelity(model: &Model, images: &[Pixels]) -> Result<Vec<Fidelity>, TeacherError> {
    let engine = |precision| {
        let mut config = CpuConfig::default();
        config.precision = precision;
        CpuEngine::new(model, config)
    };
    let (mut exact, mut rounded) = (engine(CpuPrecision::F32)?, engine(CpuPrecision::Int8)?);
    let (mut want, mut got) = (Features::new(), Features::new());
    let mut by_side = BTreeMap::<usize, Vec<f64>>::new();
    for pixels in images {
        let cosines = by_side.entry(pixels.side_px).or_default();
        for image in pixels.images() {
            let image = ImageView::new(image, pixels.side_px, pixels.side_px)?;
            exact.extract(image, &Taps::none(), &mut want)?;
            rounded.extract(image, &Taps::none(), &mut got)?;
            let rows = want.patches().chunks_exact(want.dim()).zip(got.patches().chunks_exact(got.dim()));
            cosines.extend(rows.map(|(want, got)| cosine(want, got)));
        }
    }
    let measured = by_side.into_iter().map(|(side_px, cosines)| {
        let cosines = sorted(cosines);
        Fidelity {
            size_px: side_px as u32,
            patches: cosines.len() as u32,
            median: quantile(&cosines, 0.5),
            p5: quantile(&cosines, 0.05),
        }
    });
    Ok(measured.collect())
}

/// A tensor of the model in f32.
fn numbers(parameters: &Parameters, name: &str) -> Option<Numbers> {
    let tensor = parameters.get(name).ok()?.to_dtype(DType::F32).ok()?;
    tensor.flatten_all().ok()?.to_vec1().ok().map(Numbers::F32)
}
