//! From a source's tensor names to DINOv2's own.
//!
//! The backbone may sit under any prefix (`module.`, `backbone.`, `teacher.backbone.`, `dinov2.`, …): the prefix is
//! whatever precedes the patch embedding. Tensors outside of it (heads, decoders) are counted and left alone; an
//! unknown tensor *inside* a block is refused, because a block with more in it computes something else. q, k and v,
//! and the two halves of a SwiGLU, are stacked into one matrix; a missing bias becomes zeros.

use std::collections::{BTreeMap, BTreeSet};

use dinov2_core::PatchGrid;

use crate::checkpoint::SourceTensor;

/// Segments of a name that wrappers of PyTorch insert and that mean nothing.
const WRAPPERS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// Where a backbone begins: the patch embedding of the official code and timm, and that of Hugging Face.
const ANCHORS: [&str; 2] = ["patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"];
/// Segments that mark the averaged, better copy where a training checkpoint holds several.
const AVERAGED: [&str; 4] = ["teacher", "ema", "model_ema", "state_dict_ema"];

/// Whose names a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The official code's, which timm shares except for a few marks.
    Official,
    /// Names or shapes that only timm produces.
    Timm,
    /// Hugging Face's.
    HuggingFace,
}

/// A tensor under its canonical name, still unread: parts laid one after another along the outermost dimension.
#[derive(Clone, Debug)]
pub struct NamedTensor {
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Source(SourceTensor),
    Zeros(usize),
}

/// A backbone under canonical names.
#[derive(Clone, Debug)]
pub struct NamedBackbone {
    /// Tensors by canonical name.
    pub tensors: BTreeMap<String, NamedTensor>,
    /// Whose names they had.
    pub dialect: Dialect,
    /// Tensors of the source that are no part of the backbone.
    pub ignored: usize,
}

impl NamedTensor {
    fn whole(tensor: SourceTensor) -> Self {
        Self { shape: tensor.shape().to_vec(), parts: vec![Part::Source(tensor)] }
    }

    /// Zeros of this shape.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), parts: vec![Part::Zeros(shape.iter().product())] }
    }

    /// Every element, row-major.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = Vec::new();
        for part in &self.parts {
            match part {
                Part::Source(tensor) if values.is_empty() => values = tensor.to_f32(),
                Part::Source(tensor) => values.extend(tensor.to_f32()),
                Part::Zeros(count) => values.resize(values.len() + count, 0.0),
            }
        }
        values
    }
}

/// Finds the backbone among `tensors` and names it canonically. `table`: grid of the position table, if it is known.
///
/// # Errors
/// No backbone, several that cannot be told apart, or a tensor inside a block that DINOv2 does not have.
pub fn canonical(
    tensors: &BTreeMap<String, SourceTensor>,
    table: Option<PatchGrid>,
) -> Result<NamedBackbone, String> {
    let mut plain = BTreeMap::new();
    for (name, tensor) in tensors {
        let unwrapped = unwrapped(name);
        if plain.insert(unwrapped.clone(), tensor).is_some() {
            return Err(format!("tensor {unwrapped:?}: expected one, got two"));
        }
    }
    let (prefix, anchor) = find_prefix(&plain)?;
    let hugging_face = anchor == ANCHORS[1];
    let mut found = Found::default();
    for (name, tensor) in &plain {
        let place = name.strip_prefix(prefix.as_str()).map(|local| match hugging_face {
            true => hugging_face_place(local),
            false => official_place(local),
        });
        match place {
            Some(Place::Part { name, part, of }) => {
                found.parts.entry(name).or_insert_with(|| vec![None; of])[part] = Some((*tensor).clone())
            }
            Some(Place::Whole(name)) => {
                found.whole.insert(name, (*tensor).clone());
            }
            Some(Place::Foreign) => {
                return Err(format!("tensor {name:?}: expected only what a DINOv2 block has, got this"));
            }
            Some(Place::Elsewhere) | None => found.ignored += 1,
        }
    }
    found.timm |= plain.contains_key(&format!("{prefix}reg_token"));
    found.finish(hugging_face, table)
}

/// The name without what wrappers insert.
fn unwrapped(name: &str) -> String {
    let segments: Vec<&str> = name.split('.').filter(|segment| !WRAPPERS.contains(segment)).collect();
    segments.join(".")
}

/// What precedes the patch embedding, and which patch embedding it is.
fn find_prefix(plain: &BTreeMap<String, &SourceTensor>) -> Result<(String, &'static str), String> {
    let mut found: Vec<(String, &'static str)> = Vec::new();
    for name in plain.keys() {
        for anchor in ANCHORS {
            let prefix =
                name.strip_suffix(anchor).filter(|prefix| prefix.is_empty() || prefix.ends_with('.'));
            found.extend(prefix.map(|prefix| (prefix.to_string(), anchor)));
        }
    }
    if found.len() > 1 {
        let averaged = |prefix: &str| prefix.split('.').any(|segment| AVERAGED.contains(&segment));
        let better: Vec<_> = found.iter().filter(|(prefix, _)| averaged(prefix)).cloned().collect();
        if better.len() == 1 {
            found = better;
        }
    }
    match found.as_slice() {
        [] => Err(format!(
            "checkpoint: expected a DINOv2 backbone ({} or {}), got none among {} tensors",
            ANCHORS[0],
            ANCHORS[1],
            plain.len()
        )),
        [one] => Ok(one.clone()),
        several => {
            let prefixes: Vec<&str> = several.iter().map(|(prefix, _)| prefix.as_str()).collect();
            Err(format!("checkpoint: expected one DINOv2 backbone, got {} under {prefixes:?}", several.len()))
        }
    }
}

/// Where a tensor of the source belongs.
enum Place {
    /// It is this tensor.
    Whole(String),
    /// It is part `part` of `of`, stacked along the outputs.
    Part { name: String, part: usize, of: usize },
    /// It is inside a block, where nothing else may be.
    Foreign,
    /// It is no part of the backbone.
    Elsewhere,
}

fn official_place(local: &str) -> Place {
    let Some(inner) = local.strip_prefix("blocks.") else {
        return match local {
            "cls_token"
            | "pos_embed"
            | "register_tokens"
            | "mask_token"
            | "patch_embed.proj.weight"
            | "patch_embed.proj.bias"
            | "norm.weight"
            | "norm.bias" => Place::Whole(local.into()),
            "reg_token" => Place::Whole("register_tokens".into()),
            _ if local.starts_with("norm_pre.") || local.starts_with("patch_embed.") => Place::Foreign,
            _ => Place::Elsewhere,
        };
    };
    let Some((block, inner)) = block_index(inner) else { return Place::Foreign };
    let Some((module, field)) = inner.rsplit_once('.') else { return Place::Foreign };
    let whole = || Place::Whole(format!("blocks.{block}.{inner}"));
    let part = |part| Place::Part { name: format!("blocks.{block}.mlp.w12.{field}"), part, of: 2 };
    match (module, field) {
        ("norm1" | "norm2" | "attn.qkv" | "attn.proj", "weight" | "bias") => whole(),
        ("mlp.fc1" | "mlp.fc2" | "mlp.w12" | "mlp.w3", "weight" | "bias") => whole(),
        ("ls1" | "ls2", "gamma") => whole(),
        ("mlp.fc1_g", "weight" | "bias") => part(0),
        ("mlp.fc1_x", "weight" | "bias") => part(1),
        _ => Place::Foreign,
    }
}

fn hugging_face_place(local: &str) -> Place {
    let Some(inner) = local.strip_prefix("encoder.layer.") else {
        return match local {
            "embeddings.cls_token" => Place::Whole("cls_token".into()),
            "embeddings.position_embeddings" => Place::Whole("pos_embed".into()),
            "embeddings.register_tokens" => Place::Whole("register_tokens".into()),
            "embeddings.mask_token" => Place::Whole("mask_token".into()),
            "embeddings.patch_embeddings.projection.weight" => Place::Whole("patch_embed.proj.weight".into()),
            "embeddings.patch_embeddings.projection.bias" => Place::Whole("patch_embed.proj.bias".into()),
            "layernorm.weight" => Place::Whole("norm.weight".into()),
            "layernorm.bias" => Place::Whole("norm.bias".into()),
            _ if local.starts_with("embeddings.") => Place::Foreign,
            _ => Place::Elsewhere,
        };
    };
    let Some((block, inner)) = inner.split_once('.').and_then(|(block, inner)| Some((number(block)?, inner)))
    else {
        return Place::Foreign;
    };
    let Some((module, field)) = inner.rsplit_once('.') else { return Place::Foreign };
    let whole = |module: &str, field: &str| Place::Whole(format!("blocks.{block}.{module}.{field}"));
    let part =
        |module: &str, part, of| Place::Part { name: format!("blocks.{block}.{module}.{field}"), part, of };
    match (module, field) {
        ("layer_scale1", "lambda1") => whole("ls1", "gamma"),
        ("layer_scale2", "lambda1") => whole("ls2", "gamma"),
        (_, field) if !matches!(field, "weight" | "bias") => Place::Foreign,
        ("norm1" | "norm2" | "mlp.fc1" | "mlp.fc2", _) => whole(module, field),
        ("attention.attention.query" | "attention.q_proj", _) => part("attn.qkv", 0, 3),
        ("attention.attention.key" | "attention.k_proj", _) => part("attn.qkv", 1, 3),
        ("attention.attention.value" | "attention.v_proj", _) => part("attn.qkv", 2, 3),
        ("attention.output.dense" | "attention.o_proj", _) => whole("attn.proj", field),
        ("mlp.weights_in", _) => whole("mlp.w12", field),
        ("mlp.gate_proj", _) => part("mlp.w12", 0, 2),
        ("mlp.up_proj", _) => part("mlp.w12", 1, 2),
        ("mlp.weights_out" | "mlp.down_proj", _) => whole("mlp.w3", field),
        _ => Place::Foreign,
    }
}

/// Splits `N.rest`, or `CHUNK.N.rest` of models that were saved with their blocks in chunks.
fn block_index(inner: &str) -> Option<(usize, &str)> {
    let (first, rest) = inner.split_once('.')?;
    let first = number(first)?;
    match rest.split_once('.').and_then(|(second, rest)| Some((number(second)?, rest))) {
        Some(chunked) => Some(chunked),
        None => Some((first, rest)),
    }
}

/// A block index; caps what a hostile name can say.
fn number(digits: &str) -> Option<usize> {
    digits.parse().ok().filter(|&number: &usize| number < dinov2_core::limits::MAX_DEPTH)
}

#[derive(Default)]
struct Found {
    whole: BTreeMap<String, SourceTensor>,
    parts: BTreeMap<String, Vec<Option<SourceTensor>>>,
    ignored: usize,
    timm: bool,
}

impl Found {
    fn finish(mut self, hugging_face: bool, table: Option<PatchGrid>) -> Result<NamedBackbone, String> {
        // A model that was built for zero registers may hold an empty tensor of them.
        self.whole.retain(|name, tensor| name != "register_tokens" || !tensor.is_empty());
        let mut tensors: BTreeMap<String, NamedTensor> = BTreeMap::new();
        for (name, parts) in std::mem::take(&mut self.parts) {
            if self.whole.contains_key(&name) {
                return Err(format!("tensor {name:?}: expected it once, got it whole and in parts"));
            }
            let stacked = stack(&name, parts)?;
            tensors.insert(name, stacked);
        }
        tensors.extend(self.whole.into_iter().map(|(name, tensor)| (name, NamedTensor::whole(tensor))));
        let timm = self.timm | add_cls_position(&mut tensors, table) | rename_packed_swiglu(&mut tensors);
        let dialect = match (hugging_face, timm) {
            (true, _) => Dialect::HuggingFace,
            (false, true) => Dialect::Timm,
            (false, false) => Dialect::Official,
        };
        Ok(NamedBackbone { tensors, dialect, ignored: self.ignored })
    }
}

/// Stacks parts along the outermost dimension. All parts of a weight must be there; a missing bias is zeros.
fn stack(name: &str, parts: Vec<Option<SourceTensor>>) -> Result<NamedTensor, String> {
    let of = parts.len();
    let Some(first) = parts.iter().flatten().next() else {
        return Err(format!("tensor {name:?}: expected parts"));
    };
    let shape = first.shape().to_vec();
    if let Some(odd) = parts.iter().flatten().find(|part| part.shape() != shape) {
        return Err(format!("tensor {name:?}: expected parts of {shape:?}, got {:?}", odd.shape()));
    }
    if shape.is_empty() || (!name.ends_with(".bias") && parts.iter().any(Option::is_none)) {
        return Err(format!("tensor {name:?}: expected {of} parts, got {}", parts.iter().flatten().count()));
    }
    let zeros = first.len();
    let parts = parts.into_iter().map(|part| part.map_or(Part::Zeros(zeros), Part::Source)).collect();
    let mut stacked = shape;
    stacked[0] = stacked[0].checked_mul(of).ok_or_else(|| format!("tensor {name:?}: expected fewer rows"))?;
    Ok(NamedTensor { shape: stacked, parts })
}

/// timm's models with registers have no position for CLS (it is folded into `cls_token`): a row of zeros stands for
/// it. Returns whether that was so.
fn add_cls_position(tensors: &mut BTreeMap<String, NamedTensor>, grid: Option<PatchGrid>) -> bool {
    let Some(table) = tensors.get_mut("pos_embed") else { return false };
    let [1, rows, dim] = table.shape[..] else { return false };
    if rows == 0 || rows.isqrt().pow(2) != rows || grid.is_some_and(|grid| grid.len() + 1 == rows) {
        return false;
    }
    table.shape = vec![1, rows + 1, dim];
    table.parts.insert(0, Part::Zeros(dim));
    true
}

/// timm calls a packed SwiGLU `fc1` and `fc2`: its `fc1` has twice the rows that `fc2` has columns. The order of the
/// halves is the official one. Returns whether anything was renamed.
fn rename_packed_swiglu(tensors: &mut BTreeMap<String, NamedTensor>) -> bool {
    let blocks: BTreeSet<String> =
        tensors.keys().filter_map(|name| Some(name.strip_suffix(".mlp.fc2.weight")?.to_string())).collect();
    let mut renamed = false;
    for block in blocks {
        let shape =
            |name: &str| tensors.get(&format!("{block}.mlp.{name}.weight")).map(|tensor| &tensor.shape[..]);
        let split = shape("w12").is_some();
        let packed = match (shape("fc1"), shape("fc2")) {
            (Some([rows, _]), Some([_, columns])) => *columns > 0 && rows / 2 == *columns && rows % 2 == 0,
            _ => false,
        };
        if !(packed || split) {
            continue;
        }
        renamed = true;
        for (from, to) in [("fc1", "w12"), ("fc2", "w3")] {
            for field in ["weight", "bias"] {
                if let Some(tensor) = tensors.remove(&format!("{block}.mlp.{from}.{field}")) {
                    tensors.insert(format!("{block}.mlp.{to}.{field}"), tensor);
                }
            }
        }
    }
    renamed
}
