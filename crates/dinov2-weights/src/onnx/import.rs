//! Finds the DINOv2 backbone of a graph and reads its weights.
//!
//! Exporters rename, transpose, merge and drop parameters, so names are not used: the backbone is recognised by the data
//! flow from the pixels through residual blocks to the final LayerNorm. Nodes after that norm (a decoder, a head) are
//! ignored. Constants remain slices of the file.

use std::collections::BTreeMap;

use bytes::Bytes;
use dinov2_core::{PositionConvention, limits};

use super::blocks::{self, Block, Linear, MlpFirst, Projections};
use super::constants::Constants;
use super::embedding::{self, Embedding};
use super::graph::Graph;
use super::norms::{Norm, Norms};
use super::pixel_note;
use super::proto::{ModelProto, NodeProto, TensorProto};
use crate::checkpoint::{Checkpoint, Hints, SourceDtype, SourceKind, SourceTensor};

/// A DINOv2 backbone within an ONNX graph.
#[derive(Clone, Debug)]
pub struct Backbone {
    /// Its weights, under the official names or, where query, key and value are separate, Hugging Face's.
    pub checkpoint: Checkpoint,
    /// Graph input that takes the normalised pixels, `[1, 3, height, width]`.
    pub pixels: String,
    /// Graph input that takes the position table of the frame's grid, `[1, 1 + patches, dim]`, where the file leaves
    /// that to its user.
    pub positions: Option<String>,
    /// Value that holds the final normed tokens, `[1, n, dim]`.
    pub tokens: String,
}

/// Reads the backbone of a graph. `label` names the file in messages.
///
/// # Errors
/// What was expected where the graph is no DINOv2 backbone, or its constants cannot be read.
pub(super) fn backbone(model: &ModelProto, constants: &Constants, label: &str) -> Result<Backbone, String> {
    let graph = Graph::new(model.graph.as_ref().ok_or("ONNX: expected a graph, got none")?)?;
    let norms = Norms::find(&graph);
    let first = norms.all.first().ok_or("graph: expected a DINOv2 backbone, got no LayerNorm")?;
    let (embedding, note) = embedding::read(&graph, constants, first.input, model)?;
    let dim = usize::try_from(embedding.patch_weight.dims[0]).map_err(|_| "dim: impossible")?;
    let (blocks, stream) = all_blocks(&graph, &norms, first.input, dim)?;
    let fused = matches!(blocks[0].projections, Projections::Fused(_));
    let last =
        *norms.reading(stream).ok_or("final LayerNorm: expected one after the last block, got none")?;
    let names = if fused { &OFFICIAL } else { &HUGGING_FACE };
    let mut import = Import { constants, names, dim, tensors: BTreeMap::new(), epsilons: Vec::new() };
    for (index, block) in blocks.iter().enumerate() {
        import.block(index, block)?;
    }
    import.norm(names.norm, &last)?;
    import.embedding(&embedding)?;
    let heads = blocks.iter().find_map(|block| block.heads);
    let timm = graph.nodes().iter().any(|node| node.name.contains("/blocks/blocks."));
    let convention = match note {
        Some(note) => note.convention,
        None => convention(&graph, &embedding, dim, fused, timm),
    };
    let hints = Hints {
        heads,
        norm_eps: Some(import.epsilon()?),
        convention: Some(convention),
        timm,
        position_table: Some(embedding.grid),
        normalisation: pixel_note::normalisation(model)?,
        ..Hints::default()
    };
    let checkpoint = Checkpoint {
        label: label.into(),
        kind: SourceKind::Onnx,
        tensors: import.tensors,
        unread: BTreeMap::new(),
        hints,
        notes: Vec::new(),
    };
    Ok(Backbone {
        checkpoint,
        pixels: embedding.pixels.name.clone(),
        positions: embedding.positions_input.map(String::from),
        tokens: last.output.into(),
    })
}

/// The resampling in the graph, or that of the library that it was exported from. Graphs with fused projections and a baked
/// table but without registers come from the official code or timm; if node names do not decide, the official code is
/// assumed.
fn convention(
    graph: &Graph,
    embedding: &Embedding,
    dim: usize,
    fused: bool,
    timm: bool,
) -> PositionConvention {
    let antialias = |resize: &NodeProto| {
        let cubic = resize.attribute("cubic_coeff_a").and_then(|attribute| attribute.f);
        resize.int("antialias") == Some(1) || cubic == Some(-0.5)
    };
    let by_scale = |resize: &NodeProto| {
        resize.input_at(3).is_none()
            && resize.input_at(2).is_some_and(|scales| graph.constant(scales).is_none())
    };
    match embedding.resize {
        Some(resize) if antialias(resize) => PositionConvention::ExactSizeAntialias,
        Some(resize) if by_scale(resize) && fused => PositionConvention::OfficialScaleFactor,
        Some(_) => PositionConvention::ExactSize,
        None if timm || embedding.prefix.len() > dim => PositionConvention::ExactSizeAntialias,
        None if fused => PositionConvention::OfficialScaleFactor,
        None => PositionConvention::ExactSize,
    }
}

/// The blocks from `stream` on, at least one, and the stream after the last.
fn all_blocks<'a>(
    graph: &Graph<'a>,
    norms: &Norms<'a>,
    mut stream: &'a str,
    dim: usize,
) -> Result<(Vec<Block<'a>>, &'a str), String> {
    let mut blocks = Vec::new();
    while let Some(block) = blocks::block(graph, norms, stream, dim)
        .map_err(|problem| format!("block {}: {problem}", blocks.len()))?
    {
        if blocks.len() == limits::MAX_DEPTH {
            return Err(format!("depth: expected at most {}, got more", limits::MAX_DEPTH));
        }
        stream = graph.root(block.mlp.sum);
        blocks.push(block);
    }
    match blocks.is_empty() {
        true => Err("graph: expected transformer blocks, got none".into()),
        false => Ok((blocks, stream)),
    }
}

/// Names of one dialect of checkpoints, those after `block` within a block. Separate query, key and value only have
/// names in Hugging Face's, a fused one only in the official.
struct Names {
    patch: &'static str,
    class: &'static str,
    positions: &'static str,
    registers: &'static str,
    block: &'static str,
    projections: &'static [&'static str],
    projected: &'static str,
    scales: [&'static str; 2],
    gelu: [&'static str; 2],
    swiglu: [&'static str; 2],
    gated: [&'static str; 3],
    norm: &'static str,
}

const OFFICIAL: Names = Names {
    patch: "patch_embed.proj",
    class: "cls_token",
    positions: "pos_embed",
    registers: "register_tokens",
    block: "blocks",
    projections: &["attn.qkv"],
    projected: "attn.proj",
    scales: ["ls1.gamma", "ls2.gamma"],
    gelu: ["mlp.fc1", "mlp.fc2"],
    swiglu: ["mlp.w12", "mlp.w3"],
    gated: ["mlp.fc1_g", "mlp.fc1_x", "mlp.w3"],
    norm: "norm",
};

const HUGGING_FACE: Names = Names {
    patch: "embeddings.patch_embeddings.projection",
    class: "embeddings.cls_token",
    positions: "embeddings.position_embeddings",
    registers: "embeddings.register_tokens",
    block: "encoder.layer",
    projections: &["attention.attention.query", "attention.attention.key", "attention.attention.value"],
    projected: "attention.output.dense",
    scales: ["layer_scale1.lambda1", "layer_scale2.lambda1"],
    gelu: ["mlp.fc1", "mlp.fc2"],
    swiglu: ["mlp.weights_in", "mlp.weights_out"],
    gated: ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    norm: "layernorm",
};

struct Import<'g> {
    constants: &'g Constants,
    names: &'static Names,
    dim: usize,
    tensors: BTreeMap<String, SourceTensor>,
    epsilons: Vec<f32>,
}

impl Import<'_> {
    fn block(&mut self, index: usize, block: &Block) -> Result<(), String> {
        let names = self.names;
        let name = |part: &str| format!("{}.{index}.{part}", names.block);
        for (branch, scale, norm) in [(&block.attention, 0, "norm1"), (&block.mlp, 1, "norm2")] {
            self.norm(&name(norm), &branch.norm)?;
            if let Some(gamma) = branch.gamma {
                self.vector(name(names.scales[scale]), gamma)?;
            }
        }
        let projections = match &block.projections {
            Projections::Fused(linear) => std::slice::from_ref(linear),
            Projections::Separate(linears) => linears,
        };
        if projections.len() != names.projections.len() {
            return Err(format!("block {index}: expected query, key and value stored as in block 0"));
        }
        for (part, linear) in names.projections.iter().zip(projections) {
            self.linear(&name(part), linear)?;
        }
        self.linear(&name(names.projected), &block.attention.last)?;
        let (parts, first): (&[&str], _) = match &block.mlp_first {
            MlpFirst::Gelu(first) => (&names.gelu, std::slice::from_ref(first)),
            MlpFirst::SwiGlu(first) => (&names.swiglu, std::slice::from_ref(first)),
            MlpFirst::GateAndUp(linears) => (&names.gated, linears.as_slice()),
        };
        let linears = first.iter().chain([&block.mlp.last]);
        parts.iter().zip(linears).try_for_each(|(part, linear)| self.linear(&name(part), linear))
    }

    fn norm(&mut self, name: &str, norm: &Norm) -> Result<(), String> {
        self.epsilons.push(norm.epsilon);
        self.vector(format!("{name}.weight"), norm.weight)?;
        match norm.bias {
            Some(bias) => self.vector(format!("{name}.bias"), bias),
            None => self.values(format!("{name}.bias"), vec![self.dim], &vec![0.0; self.dim]),
        }
    }

    fn linear(&mut self, name: &str, linear: &Linear) -> Result<(), String> {
        let weight = match linear.out_first {
            true => self.constants.tensor(linear.weight)?,
            false => self.constants.transposed(linear.weight)?,
        };
        let outputs = weight.shape().first().copied().unwrap_or(0);
        self.tensors.insert(format!("{name}.weight"), weight);
        match linear.bias {
            Some(bias) => self.vector(format!("{name}.bias"), bias),
            None => self.values(format!("{name}.bias"), vec![outputs], &vec![0.0; outputs]),
        }
    }

    fn embedding(&mut self, embedding: &Embedding) -> Result<(), String> {
        let dim = self.dim;
        self.tensors
            .insert(format!("{}.weight", self.names.patch), self.constants.tensor(embedding.patch_weight)?);
        match embedding.patch_bias {
            Some(bias) => self.vector(format!("{}.bias", self.names.patch), bias)?,
            None => self.values(format!("{}.bias", self.names.patch), vec![dim], &vec![0.0; dim])?,
        }
        let (class, registers) = embedding.prefix.split_at(dim);
        self.values(self.names.class.into(), vec![1, 1, dim], class)?;
        if !registers.is_empty() {
            self.values(self.names.registers.into(), vec![1, registers.len() / dim, dim], registers)?;
        }
        let rows = embedding.positions.len() / dim;
        self.values(self.names.positions.into(), vec![1, rows, dim], &embedding.positions)
    }

    /// A constant of any shape with one side longer than 1, as a vector.
    fn vector(&mut self, name: String, tensor: &TensorProto) -> Result<(), String> {
        let tensor = self.constants.tensor(tensor)?;
        let flat = tensor.reshaped(vec![tensor.len()])?;
        self.tensors.insert(name, flat);
        Ok(())
    }

    fn values(&mut self, name: String, shape: Vec<usize>, values: &[f32]) -> Result<(), String> {
        let bytes: Bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into();
        self.tensors.insert(name, SourceTensor::contiguous(SourceDtype::F32, shape, bytes)?);
        Ok(())
    }

    /// The one epsilon of all norms.
    fn epsilon(&self) -> Result<f32, String> {
        let first = self.epsilons[0];
        match self.epsilons.iter().find(|&&epsilon| epsilon != first) {
            Some(other) => Err(format!("LayerNorm epsilon: expected one, got {first} and {other}")),
            None => Ok(first),
        }
    }
}
