use std::collections::BTreeMap;
use std::io::{self, Write};

use dinov2_core::{Features, HeadOutput, ImageView, Tap};
use dinov2_files::hex_unless_utf8;
use serde_json::{Map, Value, json};

use super::FeatureMeta;
use super::arrays::{Values, array_of};
use crate::Frame;

/// Bytes that the header is padded to a multiple of, so that tensors are aligned in a mapped file.
const ALIGN_BYTES: usize = 8;

/// The `__metadata__` of one file, sorted by key.
pub(super) type Facts = BTreeMap<String, String>;

pub(super) fn facts(frame: &Frame, fitted: ImageView<'_>, features: &Features, meta: &FeatureMeta) -> Facts {
    let mut facts: Facts = meta.extra.iter().cloned().collect();
    let mut tell = |key: &str, value: String| facts.insert(key.to_string(), value);
    tell("format", "dinov2-edge features 1".into());
    tell("source", frame.path.as_ref().map_or_else(|| frame.name.clone(), |path| path.display().to_string()));
    if let Some(hex) = frame.path.as_deref().and_then(hex_unless_utf8) {
        tell("source_hex", hex);
    }
    tell("frame_name", frame.name.clone());
    tell("frame_index", frame.index.to_string());
    if let Some(time) = frame.capture_ns {
        tell("capture_ns", time.to_string());
    }
    tell("frame_size_px", format!("{}x{}", frame.width_px, frame.height_px));
    tell("image_size_px", format!("{}x{}", fitted.width_px(), fitted.height_px()));
    tell("grid", features.grid().to_string());
    tell("patch_size_px", meta.patch_size.to_string());
    tell("model", meta.model.clone());
    tell("model_file", meta.model_file.clone());
    tell("engine", meta.engine.clone());
    tell("precision", meta.precision.clone());
    facts
}

/// Writes a feature file: `cls` [dim], `registers` [registers, dim] where the model has them, `patches` [rows, cols,
/// dim], and each tap under its name: [n, dim], or [heads, n] for `cls_attention`; all f32. Then what heads made of them, `head.NAME`, shaped as [`array_of`] says. Format: safetensors, with
/// tensors in the order above, so that equal features are equal bytes.
pub(super) fn write(
    file: &mut impl Write,
    features: &Features,
    outputs: &[(&str, &HeadOutput)],
    facts: &Facts,
) -> io::Result<()> {
    let mut tensors = tensors(features);
    tensors.extend(outputs.iter().map(|(name, output)| {
        let (shape, values) = array_of(output);
        (format!("head.{name}"), shape, values)
    }));
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!(facts));
    let mut start = 0;
    for (name, shape, values) in &tensors {
        let end = start + values.bytes();
        let dtype = match values {
            Values::F32(_) => "F32",
            Values::U8(_) => "U8",
        };
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
        start = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(ALIGN_BYTES), b' ');
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    tensors.iter().try_for_each(|(_, _, values)| values.write(file))
}

/// Names, shapes and values.
type Tensors<'a> = Vec<(String, Vec<usize>, Values<'a>)>;

fn tensors(features: &Features) -> Tensors<'_> {
    let (grid, dim) = (features.grid(), features.dim());
    let tokens = features.tokens().len() / dim.max(1);
    let mut tensors = vec![("cls".to_string(), vec![dim], Values::F32(features.cls().into()))];
    if !features.registers().is_empty() {
        let registers = features.registers();
        tensors.push(("registers".into(), vec![registers.len() / dim, dim], Values::F32(registers.into())));
    }
    tensors.push(("patches".into(), vec![grid.rows, grid.cols, dim], Values::F32(features.patches().into())));
    for (tap, values) in features.taps() {
        let shape = match tap {
            Tap::Layer { .. } | Tap::Facet { .. } => vec![tokens, dim],
            Tap::ClsAttention => vec![values.len() / tokens.max(1), tokens],
        };
        tensors.push((tap.to_string(), shape, Values::F32(values.into())));
    }
    tensors
}
