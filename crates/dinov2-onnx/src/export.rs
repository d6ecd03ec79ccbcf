//! Export of a model file: the graph of `vit_graph.rs` with its weights, in one file or with an external data file beside it.
//!
//! Files are written whole and renamed into place. Nothing is quantized or optimised here.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use dinov2_core::{PatchGrid, Taps};
use dinov2_files::{Kind, Target, WholeFile};
use dinov2_weights::Model;
use dinov2_weights::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use dinov2_weights::onnx::{MEAN_KEY, PositionNote, STD_KEY};
use prost::Message;

use crate::OnnxError;
use crate::vit_graph::{GraphSize, vit_graph};
use crate::weights::{OnnxWeights, estimated_bytes};

/// The operator set of exported files: the first with LayerNormalization.
const OPSET: i64 = 17;
/// The file format that belongs to it.
const IR_VERSION: i64 = 8;
/// Weights beyond this go into an external data file: protobuf ends at 2 GiB.
pub const MAX_EMBEDDED_BYTES: usize = 1_900_000_000;

/// The size that an exported file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resolution {
    /// One patch grid; its position table is baked in.
    Static(PatchGrid),
    /// Any grid; the position table is the second input, `position_embedding [1, 1 + rows * cols, dim]`, as
    /// [`Model::position_embedding`] computes it for the grid of the pixels.
    Dynamic,
}

/// The arithmetic of an exported file. Inputs and outputs are f32 in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Linear layers and the products of attention in f16; sums, LayerNorm and softmax in f32.
    F16,
}

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportConfig {
    /// For which size.
    pub resolution: Resolution,
    /// In which arithmetic.
    pub precision: Precision,
    /// Outputs besides the final tokens, under their [`dinov2_core::Tap`] names.
    pub taps: Taps,
    /// Weights of more bytes than this go into an external data file, `NAME.onnx.data`.
    pub max_embedded_bytes: usize,
}

impl ExportConfig {
    /// f32, only the final tokens, one file where possible.
    pub fn new(resolution: Resolution) -> Self {
        Self {
            resolution,
            precision: Precision::F32,
            taps: Taps::none(),
            max_embedded_bytes: MAX_EMBEDDED_BYTES,
        }
    }
}

/// Files that an export wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The ONNX file.
    pub model: PathBuf,
    /// The external data file beside it, for large models. It must stay beside it under its name.
    pub data: Option<PathBuf>,
}

/// Writes a model as an ONNX file (opset 17, standard operators only) to `output`. Unless the target allows more, only an existing ONNX
/// file is replaced.
///
/// Input `pixel_values [1, 3, height, width]`: RGB in 0..=1, normalised by the model's mean and standard deviation,
/// which the file's metadata repeats. Output `last_hidden_state [1, n, dim]`: the final normed tokens, CLS, then
/// registers, then patches row by row. Files have their names only once they are whole.
///
/// # Errors
/// A tap or grid that the model cannot have, weights beyond the range of f16 when that is asked for, a target that
/// refuses, or a file that cannot be written.
pub fn export(
    model: &Model,
    config: &ExportConfig,
    output: impl Into<Target>,
) -> Result<Exported, OnnxError> {
    let output = output.into();
    output.check(Kind::Onnx)?;
    config.taps.check(model.spec())?;
    let mut data = None;
    let weights = if estimated_bytes(model.spec(), config.precision) <= config.max_embedded_bytes {
        OnnxWeights::embedded(model, config.precision)?
    } else {
        let path = data_path(output.path());
        let location = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut writer = BufWriter::new(WholeFile::create(output.at(&path), Kind::Weights)?);
        let weights = OnnxWeights::external(model, config.precision, &mut writer, &location)?;
        let file = writer.into_inner().map_err(|error| OnnxError::io("write", &path, error.into_error()))?;
        data = Some(file);
        weights
    };
    let bytes = model_proto(model, &weights, config)?.encode_to_vec();
    let mut file = WholeFile::create(&output, Kind::Onnx)?;
    file.write_all(&bytes).map_err(|source| OnnxError::io("write", output.path(), source))?;
    let data = data.map(|data| data.finish()).transpose()?;
    Ok(Exported { model: file.finish()?, data })
}

/// A model as the bytes of one ONNX file, however large.
///
/// # Errors
/// A tap or grid that the model cannot have, or weights beyond the range of f16 when that is asked for.
pub fn export_to_bytes(model: &Model, config: &ExportConfig) -> Result<Vec<u8>, OnnxError> {
    config.taps.check(model.spec())?;
    let weights = OnnxWeights::embedded(model, config.precision)?;
    Ok(model_proto(model, &weights, config)?.encode_to_vec())
}

fn model_proto(model: &Model, weights: &OnnxWeights, config: &ExportConfig) -> Result<ModelProto, OnnxError> {
    let positions;
    let size = match config.resolution {
        Resolution::Static(grid) => {
            positions = model.position_embedding(grid)?;
            GraphSize::Static(grid, &positions)
        }
        Resolution::Dynamic => GraphSize::Dynamic,
    };
    let mut proto = wrap(vit_graph(weights, &size, &config.taps)?);
    proto.metadata_props = facts(model);
    let spec = model.spec();
    if config.resolution != Resolution::Static(spec.position_table) {
        let note = PositionNote {
            grid: spec.position_table,
            convention: spec.position_convention,
            table: model.f32("pos_embed")?,
        };
        proto.metadata_props.extend(note.entries());
    }
    Ok(proto)
}

/// A graph as a file.
pub(crate) fn wrap(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "dinov2-edge".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        ..ModelProto::default()
    }
}

/// Metadata that users of the file need besides its inputs and outputs.
fn facts(model: &Model) -> Vec<StringStringEntryProto> {
    let preprocessing = &model.metadata().preprocessing;
    let channels = |values: [f32; 3]| values.map(|value| value.to_string()).join(" ");
    let facts = [
        ("dinov2_edge.model", model.spec().name()),
        (MEAN_KEY, channels(preprocessing.mean)),
        (STD_KEY, channels(preprocessing.std)),
        ("dinov2_edge.patch_size", model.spec().patch_size.to_string()),
        ("dinov2_edge.source", model.metadata().provenance.source.clone()),
    ];
    facts.map(|(key, value)| StringStringEntryProto { key: key.into(), value }).into()
}

/// `NAME.onnx.data` beside `NAME.onnx`.
fn data_path(output: &Path) -> PathBuf {
    let mut path = OsString::from(output);
    path.push(".data");
    path.into()
}
