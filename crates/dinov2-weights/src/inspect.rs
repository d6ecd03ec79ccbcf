//! A model file in words.

use std::fmt::Write;

use crate::{Model, Storage, StoredDtype};

/// Describes a model: shape, storage, provenance and tensors. Blocks that hold the same as the first are summed up.
pub fn inspect(model: &Model) -> String {
    let metadata = model.metadata();
    let spec = &metadata.spec;
    let mlp = match spec.mlp {
        dinov2_core::MlpKind::Gelu => "GELU",
        dinov2_core::MlpKind::SwiGlu => "SwiGLU",
    };
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<14}{value}").expect("writing to a string succeeds");
    };
    line("model", format!("{}, {} parameters", spec.name(), grouped(spec.parameters())));
    line("width", format!("{} in {} heads of {}", spec.dim, spec.heads, spec.head_dim()));
    line(
        "blocks",
        format!("{}, MLP {mlp} {}, {}", spec.depth, spec.mlp_hidden, layer_scale(spec.layer_scale)),
    );
    line("registers", spec.registers.to_string());
    line("norm epsilon", format!("{:e}", spec.norm_eps));
    line("positions", format!("{} table, {}", spec.position_table, spec.position_convention));
    line("storage", format!("{}, {} bytes", storage(model), grouped(model.file_bytes())));
    if metadata.quantisation.as_ref().is_some_and(|quantisation| quantisation.trained) {
        line("roundings", "learnt with the weights".into());
    }
    for f in metadata.quantisation.iter().flat_map(|quantisation| &quantisation.fidelity) {
        let value =
            format!("median {:.5}, p5 {:.5} at {} ({} patches)", f.median, f.p5, f.size_px, f.patches);
        line("patch cosine", value);
    }
    let pixels = metadata.preprocessing;
    line("pixels", format!("RGB u8, mean {:?}, std {:?} of 0..=1", pixels.mean, pixels.std));
    let provenance = &metadata.provenance;
    line("source", format!("{} ({})", provenance.source, provenance.source_format));
    line("licence", provenance.licence.clone().unwrap_or_else(|| "not stated".into()));
    if let Some(notes) = &provenance.notes {
        line("notes", notes.clone());
    }
    line("written by", provenance.converter.clone());
    line("format", metadata.format_version.to_string());
    text.push('\n');
    text.push_str(&tensor_table(model));
    text
}

/// `f32`; of int4 also what the file does not have in it: `int4 weights in groups of 64, 1 of 49 matrices int8`.
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
