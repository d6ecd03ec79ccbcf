//! Turns a checkpoint of any kind into a model file, one tensor at a time.
//!
//! The kind is recognised by content: a folder, a zip archive (`.pth`), safetensors (a model file, Hugging Face's or timm's),
//! or ONNX. Memory: the mapped pages of the input, and one tensor.

use std::path::Path;

use bytes::Bytes;
use dinov2_core::{PositionConvention, VitSpec};
use dinov2_files::Target;

use crate::checkpoint::{Checkpoint, map_file};
use crate::header::{Header, looks_like_safetensors};
use crate::infer::{Overrides, infer};
use crate::layout::{Slot, slots};
use crate::metadata::{
    FORMAT_VERSION, IMAGENET, Interpolation, METADATA_KEY, PixelFormat, Preprocessing, Provenance,
    SourceFormat,
};
use crate::naming::{NamedBackbone, canonical};
use crate::storage::{INT4_ADVICE, first_not_finite};
use crate::writer::ModelWriter;
use crate::{ConvertError, Metadata, Model, Storage, StoredDtype, pth, safetensors_file};

/// Options of a conversion.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// How matrices are stored.
    pub storage: Storage,
    /// Attention heads, instead of the source's.
    pub heads: Option<usize>,
    /// How the position table is resampled, instead of what the kind of the source implies.
    pub convention: Option<PositionConvention>,
    /// Name of the source for the provenance; by default the name of the input.
    pub source: Option<String>,
    /// Licence of the weights for the provenance.
    pub licence: Option<String>,
    /// Notes for the provenance.
    pub notes: Option<String>,
}

impl ConvertOptions {
    /// All values as in the source.
    pub fn new(storage: Storage) -> Self {
        Self { storage, heads: None, convention: None, source: None, licence: None, notes: None }
    }
}

/// Progress of a conversion, reported after each tensor.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The tensor just written.
    pub tensor: &'a str,
    /// Tensors written.
    pub done: usize,
    /// Tensors of the model.
    pub total: usize,
}

/// Result of a conversion.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// Metadata of the written file.
    pub metadata: Metadata,
    /// Tensors written.
    pub tensors: usize,
    /// Number of tensors of the source outside the backbone: heads, decoders, optimiser state.
    pub ignored: usize,
    /// Size of the file.
    pub file_bytes: u64,
    /// Remarks for the user on how the source was read, one sentence each.
    pub notes: Vec<String>,
}

/// Reads the checkpoint at `input` and writes a model file to `output`. The target's rules decide what may be replaced; by
/// default only another model file.
///
/// If the input is a model file, its provenance and convention are kept unless `options` replace them. Its measured
/// fidelity is dropped, because it does not hold for the new file. The output appears only when it is complete.
///
/// # Errors
/// If the storage is [`Storage::Int4`], the input cannot be read or is not a DINOv2, the weights contain NaN or infinity, or
/// exceed the range of f16 when stored as f16, or the output cannot be written.
pub fn convert(
    input: &Path,
    output: impl Into<Target>,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Converted, ConvertError> {
    let target = output.into();
    let output = target.path();
    let matrix_dtype = options.storage.matrix_dtype();
    let matrix_dtype =
        matrix_dtype.ok_or_else(|| ConvertError::invalid(INT4_ADVICE, output.display().to_string()))?;
    let source = Source::open(input, options)?;
    let wanted: Vec<(Slot, StoredDtype)> = slots(&source.metadata.spec)
        .into_iter()
        .filter(|slot| source.has(&slot.name))
        .map(|slot| {
            let dtype = if slot.matrix { matrix_dtype } else { StoredDtype::F32 };
            (slot, dtype)
        })
        .collect();
    let mut writer = ModelWriter::create(&target, &source.metadata, &wanted)?;
    for (done, planned) in wanted.iter().enumerate() {
        let (slot, dtype) = planned;
        let values = source.read(&slot.name)?;
        if let Some((index, value)) = first_not_finite(&values) {
            let (tensor, path) = (slot.name.clone(), source.label.clone());
            return Err(ConvertError::NotFinite { tensor, index, value, path });
        }
        if *dtype == StoredDtype::F16 {
            check_f16_range(&slot.name, &values, &source.label)?;
        }
        writer.write_rounded(planned, &values)?;
        progress(Progress { tensor: &slot.name, done: done + 1, total: wanted.len() });
    }
    let file_bytes = writer.total();
    writer.finish()?;
    let Source { metadata, ignored, notes, .. } = source;
    Ok(Converted { metadata, tensors: wanted.len(), ignored, file_bytes, notes })
}

/// Reads a checkpoint of any kind but our own model file, with the files beside it that belong to it
/// ([`SIDE_FILES`](crate::SIDE_FILES)).
///
/// # Errors
/// A file of no known kind, or a malformed one.
pub fn read_checkpoint(input: &Path) -> Result<Checkpoint, ConvertError> {
    if input.is_dir() {
        return safetensors_file::read_folder(input);
    }
    let checkpoint = parse(map_file(input)?, input, input.parent())?;
    safetensors_file::with_side_files(input, checkpoint)
}

/// Reads a checkpoint in memory, of any kind but our own model file. Nothing else is opened. `label` stands for its
/// path in messages.
///
/// # Errors
/// Bytes of no known kind, or malformed ones.
pub fn checkpoint_from_bytes(bytes: impl Into<Bytes>, label: &str) -> Result<Checkpoint, ConvertError> {
    parse(bytes.into(), Path::new(label), None)
}

/// Recognises the kind by content. `folder` may contain the external data of an ONNX file.
fn parse(bytes: Bytes, path: &Path, folder: Option<&Path>) -> Result<Checkpoint, ConvertError> {
    let label = path.display().to_string();
    if looks_like_safetensors(&bytes) {
        safetensors_file::parse(&bytes, label)
    } else if pth::looks_like_pth(&bytes) {
        pth::parse(&bytes, label)
    } else if let Some(known_other_kind) = known_other_kind(&bytes) {
        let problem = format!(
            "checkpoint: expected safetensors, .pth, ONNX or a folder of them, got {known_other_kind}"
        );
        Err(ConvertError::invalid(problem, label))
    } else if looks_like_onnx(path, &bytes) {
        parse_onnx(bytes, folder, label)
    } else {
        let got = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        let problem = format!(
            "checkpoint: expected safetensors, a .pth archive, ONNX or a folder of them, got {} bytes beginning {got:?}",
            bytes.len()
        );
        Err(ConvertError::invalid(problem, label))
    }
}

/// Whether a file should be read as ONNX: by its ending, or because it begins like a protobuf with an IR version.
fn looks_like_onnx(path: &Path, bytes: &[u8]) -> bool {
    let named = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"));
    named || matches!(bytes, [0x08, 1..=0x20, ..])
}

#[cfg(feature = "onnx")]
fn parse_onnx(bytes: Bytes, folder: Option<&Path>, label: String) -> Result<Checkpoint, ConvertError> {
    let model = crate::onnx::decode(bytes, &label)?;
    Ok(crate::onnx::backbone(&model, folder, &label)?.checkpoint)
}

#[cfg(not(feature = "onnx"))]
fn parse_onnx(_: Bytes, _: Option<&Path>, label: String) -> Result<Checkpoint, ConvertError> {
    let problem =
        "checkpoint: expected safetensors or .pth, got ONNX (this program was built without its reader)";
    Err(ConvertError::invalid(problem, label))
}

/// For files that are often mistaken for checkpoints: the kind, by its first bytes, and advice.
fn known_other_kind(bytes: &[u8]) -> Option<&'static str> {
    const KINDS: [(usize, &[u8], &str); 6] = [
        (0, b"GGUF", "GGUF, which holds quantized weights (convert the checkpoint that it was made from)"),
        (0, b"version https://git-lfs", "a pointer of git-lfs instead of the file (run git lfs pull)"),
        (0, b"\x89HDF\r\n\x1a\n", "HDF5 (save the weights as safetensors)"),
        (4, b"TFL3", "a TensorFlow Lite model (convert the checkpoint that it was made from)"),
        (0, b"\x1f\x8b", "a gzip archive (unpack it)"),
        (0, b"<!DOCTYPE", "a page of HTML instead of the file (download it again)"),
    ];
    let is = |&&(at, magic, _): &&(usize, &[u8], &str)| bytes.get(at..at + magic.len()) == Some(magic);
    KINDS.iter().find(is).map(|&(_, _, kind)| kind)
}

/// An input whose names, shapes and metadata are known. Weights are not read yet.
pub(crate) struct Source {
    label: String,
    pub(crate) metadata: Metadata,
    pub(crate) ignored: usize,
    pub(crate) notes: Vec<String>,
    weights: Weights,
}

enum Weights {
    Backbone(NamedBackbone),
    Model(Box<Model>),
}

impl Source {
    pub(crate) fn open(input: &Path, options: &ConvertOptions) -> Result<Self, ConvertError> {
        match is_model_file(input)? {
            true => Self::of_model(Model::open(input)?, options),
            false => Self::of_checkpoint(&read_checkpoint(input)?, input, options),
        }
    }

    fn of_model(model: Model, options: &ConvertOptions) -> Result<Self, ConvertError> {
        let mut metadata =
            Metadata { storage: options.storage, quantization: None, ..model.metadata().clone() };
        let spec = &mut metadata.spec;
        spec.heads = options.heads.unwrap_or(spec.heads);
        spec.position_convention = options.convention.unwrap_or(spec.position_convention);
        let label = model.label().to_string();
        spec.validate().map_err(|source| ConvertError::Spec { source, path: label.clone() })?;
        let provenance = &mut metadata.provenance;
        provenance.licence = options.licence.clone().or(provenance.licence.take());
        provenance.notes = options.notes.clone().or(provenance.notes.take());
        if let Some(source) = &options.source {
            provenance.source.clone_from(source);
        }
        Ok(Self { label, metadata, ignored: 0, notes: Vec::new(), weights: Weights::Model(Box::new(model)) })
    }

    fn of_checkpoint(
        checkpoint: &Checkpoint,
        input: &Path,
        options: &ConvertOptions,
    ) -> Result<Self, ConvertError> {
        let label = checkpoint.label.clone();
        let mut backbone =
            canonical(checkpoint).map_err(|problem| ConvertError::invalid(problem, label.as_str()))?;
        let overrides = Overrides { heads: options.heads, convention: options.convention };
        let (spec, format) = infer(checkpoint, &mut backbone, overrides)?;
        let metadata = new_metadata(spec, format, checkpoint, input, options);
        let mut notes = checkpoint.notes.clone();
        notes.append(&mut backbone.notes);
        notes.extend(fit_note(&metadata.preprocessing));
        Ok(Self { label, metadata, ignored: backbone.ignored, notes, weights: Weights::Backbone(backbone) })
    }

    fn has(&self, name: &str) -> bool {
        match &self.weights {
            Weights::Backbone(backbone) => backbone.tensors.contains_key(name),
            Weights::Model(model) => model.tensor(name).is_ok(),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, ConvertError> {
        match &self.weights {
            Weights::Backbone(backbone) => Ok(backbone.tensors[name].to_f32()),
            Weights::Model(model) => Ok(model.f32(name)?),
        }
    }
}

/// Whether a file is safetensors with the metadata of a model file. Only [`Model::open`] checks that it is valid.
///
/// # Errors
/// A file that cannot be opened, or safetensors whose header is malformed.
pub fn is_model_file(input: &Path) -> Result<bool, ConvertError> {
    if input.is_dir() {
        return Ok(false);
    }
    let bytes = map_file(input)?;
    if !looks_like_safetensors(&bytes) {
        return Ok(false);
    }
    let header = Header::parse(&bytes)
        .map_err(|problem| ConvertError::invalid(problem, input.display().to_string()))?;
    Ok(header.metadata.contains_key(METADATA_KEY))
}

fn new_metadata(
    spec: VitSpec,
    source_format: SourceFormat,
    checkpoint: &Checkpoint,
    input: &Path,
    options: &ConvertOptions,
) -> Metadata {
    let normalisation = checkpoint.hints.normalisation.unwrap_or(IMAGENET);
    let file_name = || input.file_name().unwrap_or(input.as_os_str()).to_string_lossy().into_owned();
    Metadata {
        format_version: FORMAT_VERSION,
        spec,
        storage: options.storage,
        preprocessing: Preprocessing {
            input: PixelFormat::RgbU8,
            mean: normalisation.mean,
            std: normalisation.std,
            source_fit: checkpoint.hints.source_fit,
        },
        provenance: Provenance {
            source: options.source.clone().unwrap_or_else(file_name),
            source_format,
            licence: options.licence.clone().or_else(|| checkpoint.hints.licence.clone()),
            notes: options.notes.clone(),
            converter: concat!("dinov2-edge ", env!("CARGO_PKG_VERSION")).into(),
        },
        quantization: None,
    }
}

/// A note for sources that resample images in another way than this program.
fn fit_note(preprocessing: &Preprocessing) -> Option<String> {
    let kind = preprocessing.source_fit?.interpolation.filter(|&kind| kind != Interpolation::Bicubic)?;
    Some(format!(
        "the source resizes images by {kind} resampling, this program by bicubic: features of resized images differ a \
         little from the source's; --size native takes images as they are"
    ))
}

fn check_f16_range(name: &str, values: &[f32], path: &str) -> Result<(), ConvertError> {
    let most = half::f16::MAX.to_f32();
    match values.iter().find(|value| value.abs() > most) {
        None => Ok(()),
        Some(value) => Err(ConvertError::Tensor {
            tensor: name.into(),
            expected: format!("weights within {most} to store them as f16"),
            got: value.to_string(),
            path: path.into(),
        }),
    }
}
