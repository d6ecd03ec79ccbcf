//! An ONNX file cut down to its DINOv2 backbone: from the pixels to the final normed tokens, without heads.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use dinov2_core::{PatchGrid, VitSpec};
use dinov2_weights::checkpoint::map_file;
use dinov2_weights::onnx::proto::{
    GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, data_type,
};
use dinov2_weights::onnx::{self, Backbone};
use dinov2_weights::{ConvertError, IMAGENET, Normalisation, infer, naming, position};

use crate::OnnxError;

/// A file's backbone, ready to be run.
pub(crate) struct FileGraph {
    pub(crate) label: String,
    pub(crate) spec: VitSpec,
    pub(crate) normalisation: Normalisation,
    /// The graph from pixels (and positions) to tokens. Its inputs are in this order.
    pub(crate) model: ModelProto,
    /// Whether the pixels are f16.
    pub(crate) half_pixels: bool,
    /// Sides of the frames that the file takes, `None` where any.
    height: Option<usize>,
    width: Option<usize>,
    /// The stored position table, for a file that takes the resampled one as its second input.
    positions: Option<Vec<f32>>,
}

impl FileGraph {
    /// Reads a file and finds its backbone.
    ///
    /// # Errors
    /// A file that cannot be read, is no ONNX, or holds no DINOv2 backbone.
    pub(crate) fn open(path: &Path) -> Result<Self, OnnxError> {
        let label = path.display().to_string();
        let mut model = onnx::decode(map_file(path)?, &label)?;
        let backbone = onnx::backbone(&model, path.parent(), &label)?;
        let invalid = |problem: String| ConvertError::invalid(problem, label.as_str());
        let checkpoint = &backbone.checkpoint;
        let mut named = naming::canonical(checkpoint).map_err(invalid)?;
        let (spec, _) = infer::infer(checkpoint, &mut named, infer::Overrides::default())?;
        // DINOv2 was trained with ImageNet's, where the file notes none.
        let normalisation = checkpoint.hints.normalisation.unwrap_or(IMAGENET);
        let positions = backbone.positions.as_ref().map(|_| named.tensors["pos_embed"].to_f32());
        let mut graph = pruned(model.graph.take().unwrap_or_default(), &backbone).map_err(invalid)?;
        let pixels = &graph.input[0];
        let [height, width] = frame_sides(pixels).map_err(invalid)?;
        let half_pixels = element_type(pixels) == Some(data_type::FLOAT16);
        onnx::inline_external(&mut graph, path.parent(), &label)?;
        model.graph = Some(graph);
        Ok(Self { label, spec, normalisation, model, half_pixels, height, width, positions })
    }

    /// The position table that the file takes for this grid, `[1 + rows * cols, dim]`; `None` if it has its own.
    ///
    /// # Errors
    /// A frame of another size than the file is for.
    pub(crate) fn positions(&self, grid: PatchGrid) -> Result<Option<Vec<f32>>, String> {
        let patch = self.spec.patch_size;
        let sides = [(self.height, grid.rows * patch), (self.width, grid.cols * patch)];
        if sides.iter().any(|(expected, got)| expected.is_some_and(|expected| expected != *got)) {
            let word = |side: Option<usize>| side.map_or("any".into(), |side| side.to_string());
            let [expected, got] = [
                format!("{}x{}", word(self.width), word(self.height)),
                format!("{}x{}", sides[1].1, sides[0].1),
            ];
            return Err(format!(
                "image size: expected {expected}, for which the graph was exported, got {got} in {}",
                self.label
            ));
        }
        let Some(table) = &self.positions else { return Ok(None) };
        position::resample(table, self.spec.position_table, grid, self.spec.position_convention).map(Some)
    }
}

/// Only what leads from the pixels to the tokens; everything else (heads, other outputs) is dropped.
fn pruned(mut graph: GraphProto, backbone: &Backbone) -> Result<GraphProto, String> {
    let mut wanted = HashSet::from([backbone.tokens.clone()]);
    let mut kept: Vec<NodeProto> = Vec::new();
    while let Some(node) = graph.node.pop() {
        if node.output.iter().any(|output| wanted.contains(output)) {
            wanted.extend(node.input.iter().cloned());
            kept.push(node);
        }
    }
    kept.reverse();
    let mut inputs: HashMap<String, ValueInfoProto> =
        graph.input.drain(..).map(|input| (input.name.clone(), input)).collect();
    let names = std::iter::once(&backbone.pixels).chain(&backbone.positions);
    let input = names.filter_map(|name| inputs.remove(name)).collect();
    let initializer: Vec<TensorProto> =
        graph.initializer.into_iter().filter(|tensor| wanted.contains(&tensor.name)).collect();
    let constants: HashSet<&str> = initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    if let Some(name) =
        inputs.keys().find(|name| wanted.contains(*name) && !constants.contains(name.as_str()))
    {
        return Err(format!(
            "graph input {name:?}: expected only the pixels, got another input that the tokens need"
        ));
    }
    let tokens = ValueInfoProto { name: backbone.tokens.clone(), ..ValueInfoProto::default() };
    Ok(GraphProto {
        name: graph.name,
        node: kept,
        initializer,
        input,
        output: vec![tokens],
        ..GraphProto::default()
    })
}

fn element_type(input: &ValueInfoProto) -> Option<i32> {
    Some(input.r#type.as_ref()?.tensor_type.as_ref()?.elem_type)
}

/// Height and width that a pixel input is fixed to.
fn frame_sides(pixels: &ValueInfoProto) -> Result<[Option<usize>; 2], String> {
    let Some(sides) = pixels.sides() else { return Ok([None; 2]) };
    let fits = |side: Option<i64>, length: i64| side.is_none_or(|side| side == length);
    match *sides.as_slice() {
        [batch, channels, height, width] if fits(batch, 1) && fits(channels, 3) => {
            Ok([height, width].map(|side| side.and_then(|side| usize::try_from(side).ok())))
        }
        _ => Err(format!("graph input {:?}: expected [1, 3, height, width], got {sides:?}", pixels.name)),
    }
}
