//! Reads DINOv2 backbones from ONNX files of any exporter.
//!
//! The size is checked against a budget, the file is decoded without copying weights and indexed as a graph, and the
//! backbone is recognised by its structure. Quantized graphs, fused operators of a runtime and graphs that normalise
//! pixels themselves are errors.
//!
//! ```no_run
//! use std::path::Path;
//!
//! # fn main() -> Result<(), dinov2_weights::ConvertError> {
//! let checkpoint = dinov2_weights::onnx::read(Path::new("model.onnx"))?;
//! println!("{} tensors", checkpoint.tensors.len());
//! # Ok(())
//! # }
//! ```

mod blocks;
mod budget;
mod constants;
mod embedding;
mod graph;
mod import;
mod norms;
mod pixel_note;
mod position_note;
pub mod proto;

use std::path::Path;

use bytes::Bytes;
use prost::Message;

pub use import::Backbone;
pub use pixel_note::{MEAN_KEY, STD_KEY};
pub use position_note::PositionNote;

use constants::Constants;
use proto::{GraphProto, ModelProto};

use crate::ConvertError;
use crate::checkpoint::{Checkpoint, map_file};

/// Reads the backbone of an ONNX file as a checkpoint.
///
/// # Errors
/// A file that cannot be read, is no ONNX, or holds no DINOv2 backbone.
pub fn read(path: &Path) -> Result<Checkpoint, ConvertError> {
    read_file(path, map_file(path)?)
}

/// [`read`] of a file that is already mapped.
pub(crate) fn read_file(path: &Path, bytes: Bytes) -> Result<Checkpoint, ConvertError> {
    let label = path.display().to_string();
    let model = decode(bytes, &label)?;
    Ok(backbone(&model, path.parent(), &label)?.checkpoint)
}

/// Decodes an ONNX file; weights stay slices of `bytes`. `label` names it in messages.
///
/// # Errors
/// Bytes that are no ONNX, or whose structure would take unreasonable memory.
pub fn decode(bytes: Bytes, label: &str) -> Result<ModelProto, ConvertError> {
    budget::check(&bytes).map_err(|problem| ConvertError::invalid(problem, label))?;
    let model = ModelProto::decode(bytes)
        .map_err(|error| ConvertError::invalid(format!("protobuf: {error}"), label))?;
    match model.graph {
        Some(_) => Ok(model),
        None => Err(ConvertError::invalid("ONNX: expected a graph, got none", label)),
    }
}

/// Finds the backbone of a decoded file. `folder` is where its external data may lie; `None` refuses external data.
///
/// # Errors
/// What the graph lacks of a DINOv2 backbone, or a constant that cannot be read.
pub fn backbone(model: &ModelProto, folder: Option<&Path>, label: &str) -> Result<Backbone, ConvertError> {
    import::backbone(model, &Constants::new(folder.map(folder_or_current)), label)
        .map_err(|problem| ConvertError::invalid(problem, label))
}

/// Moves the constants of external data files into the graph, without copying them.
///
/// # Errors
/// External data that is missing, too short, or outside of `folder`.
pub fn inline_external(
    graph: &mut GraphProto,
    folder: Option<&Path>,
    label: &str,
) -> Result<(), ConvertError> {
    let constants = Constants::new(folder.map(folder_or_current));
    graph
        .initializer
        .iter_mut()
        .try_for_each(|tensor| constants.inline(tensor))
        .map_err(|problem| ConvertError::invalid(problem, label))
}

/// The folder of a bare file name is the current one.
fn folder_or_current(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}
