//! Describes a model file, or a checkpoint that is not converted yet, as text.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::convert::Source;
use crate::{
    ConvertError, ConvertOptions, Metadata, Model, Preprocessing, SourceFormat, Storage, StoredDtype,
};
use dinov2_core::VitSpec;

/// Describes a model: shape, storage, provenance and tensors. Blocks equal to the first are summed up in one line.
pub fn inspect(model: &Model) -> String {
    let metadata = model.metadata();
    let mut text = Lines::default();
    text.shape(&metadata.spec);
    text.line("storage", format!("{}, {} bytes", storage(model), grouped(model.file_bytes())));
    if metadata.quantization.as_ref().is_some_and(|quantization| quantization.trained) {
        text.line("roundings", "learnt with the weights".into());
    }
    for f in metadata.quantization.iter().flat_map(|quantization| &quantization.fidelity) {
        let value =
            format!("median {:.5}, p5 {:.5} at {} ({} patches)", f.median, f.p5, f.size_px, f.patches);
        text.line("patch cosine", value);
    }
    text.pixels(&metadata.preprocessing);
    text.provenance(metadata);
    text.line("written by", metadata.provenance.converter.clone());
    text.line("format", metadata.format_version.to_string());
    format!("{}\n{}", text.0, tensor_table(model))
}

/// What is known of a checkpoint that is not converted yet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceReport {
    /// Shape of the model.
    pub spec: VitSpec,
    /// What happens to pixels before the patch embedding.
    pub preprocessing: Preprocessing,
    /// Kind of the source.
    pub source_format: SourceFormat,
    /// Licence, where the source states it.
    pub licence: Option<String>,
    /// Number of tensors outside the backbone.
    pub ignored: usize,
    /// Remarks for the user on how the source is read, one sentence each.
    pub notes: Vec<String>,
    #[serde(skip)]
    metadata: Metadata,
}

/// Reads what [`convert()`](crate::convert()) would make of a checkpoint: a file of any kind, or a folder.
///
/// # Errors
/// As [`convert()`](crate::convert()), but weights are not checked. `heads` as in [`ConvertOptions`].
pub fn inspect_source(input: &Path, heads: Option<usize>) -> Result<SourceReport, ConvertError> {
    let options = ConvertOptions { heads, ..ConvertOptions::new(Storage::F32) };
    let Source { metadata, ignored, notes, .. } = Source::open(input, &options)?;
    Ok(SourceReport {
        spec: metadata.spec.clone(),
        preprocessing: metadata.preprocessing,
        source_format: metadata.provenance.source_format,
        licence: metadata.provenance.licence.clone(),
        ignored,
        notes,
        metadata,
    })
}

impl std::fmt::Display for SourceReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Lines::default();
        text.shape(&self.spec);
        text.pixels(&self.preprocessing);
        text.provenance(&self.metadata);
        text.line("left out", format!("{} tensors that are no part of the backbone", self.ignored));
        for note in &self.notes {
            text.line("note", note.clone());
        }
        f.write_str(&text.0)
    }
}

/// Lines of a name and a value.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, value: String) {
        writeln!(self.0, "{name:<14}{value}").expect("writing to a string succeeds");
    }

    fn shape(&mut self, spec: &VitSpec) {
        let mlp = match spec.mlp {
            dinov2_core::MlpKind::Gelu => "GELU",
            dinov2_core::MlpKind::SwiGlu => "SwiGLU",
        };
        self.line("model", format!("{}, {} parameters", spec.name(), grouped(spec.parameters())));
        self.line("width", format!("{} in {} heads of {}", spec.dim, spec.heads, spec.head_dim()));
        self.line(
            "blocks",
            format!("{}, MLP {mlp} {}, {}", spec.depth, spec.mlp_hidden, layer_scale(spec.layer_scale)),
        );
        self.line("registers", spec.registers.to_string());
        self.line("norm epsilon", format!("{:e}", spec.norm_eps));
        self.line("positions", format!("{} table, {}", spec.position_table, spec.position_convention));
    }

    fn pixels(&mut self, pixels: &Preprocessing) {
        self.line("pixels", format!("RGB u8, mean {:?}, std {:?} of 0..=1", pixels.mean, pixels.std));
        if let Some(fit) = pixels.source_fit {
            self.line("source's size", format!("{fit} (for the record: --size decides)"));
        }
    }

    fn provenance(&mut self, metadata: &Metadata) {
        let provenance = &metadata.provenance;
        self.line("source", format!("{} ({})", provenance.source, provenance.source_format));
        self.line("licence", provenance.licence.clone().unwrap_or_else(|| "not stated".into()));
        if let Some(notes) = &provenance.notes {
            self.line("notes", notes.clone());
        }
    }
}

/// `f32`; for int4 also the group size and the matrices in int8: `int4 weights in groups of 64, 1 of 49 matrices int8`.
fn storage(model: &Model) -> String {
    let metadata = model.metadata();
    let Some(group) = metadata.int4_group().filter(|_| metadata.storage == Storage::Int4) else {
        return metadata.storage.to_string();
    };
    let matrices = crate::layout::slots(model.spec()).into_iter().filter(|slot| slot.matrix);
    let dtypes: Vec<StoredDtype> =
        matrices.filter_map(|slot| model.tensor(&slot.name).ok()).map(|tensor| tensor.dtype).collect();
    let int8 = dtypes.iter().filter(|&&dtype| dtype == StoredDtype::I8).count();
    format!("int4 weights in groups of {group}, {int8} of {} matrices int8", dtypes.len())
}

fn layer_scale(present: bool) -> &'static str {
    if present { "LayerScale" } else { "no LayerScale" }
}

fn tensor_table(model: &Model) -> String {
    let mut text = String::new();
    let mut told_others = false;
    for slot in crate::layout::slots(model.spec()) {
        let Ok(tensor) = model.tensor(&slot.name) else { continue };
        if slot.name.starts_with("blocks.") && !slot.name.starts_with("blocks.0.") {
            let last = model.spec().depth - 1;
            if !told_others {
                let what =
                    if model.metadata().storage == Storage::Int4 { "the same shapes" } else { "the same" };
                writeln!(text, "  blocks.1 … blocks.{last}: {what}").expect("writing to a string succeeds");
            }
            told_others = true;
            continue;
        }
        writeln!(text, "  {:<28}{:<6}{:?}", slot.name, tensor.dtype, tensor.shape)
            .expect("writing to a string succeeds");
    }
    text
}

/// Digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
