//! Maps a source's tensor names to DINOv2's own.
//!
//! The backbone may have any prefix (`module.`, `backbone.`, `teacher.backbone.`, `dinov2.`, …): the prefix is the part of
//! the name before the patch embedding. Tensors outside the backbone (heads, decoders) are counted and ignored. An
//! unknown tensor *inside* a block is an error, because such a block computes something else. q, k and v, and the two
//! halves of a SwiGLU, are stacked into one matrix. A missing bias becomes zeros.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use dinov2_weights::naming::canonical;
//! use dinov2_weights::read_checkpoint;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backbone = canonical(&read_checkpoint(Path::new("pytorch_model.bin"))?)?;
//! let qkv = &backbone.tensors["blocks.0.attn.qkv.weight"];
//! println!("{:?}, named as {:?} does", qkv.shape, backbone.dialect);
//! # Ok(())
//! # }
//! ```

mod dialects;

use std::collections::{BTreeMap, BTreeSet};

use dialects::{Numbering, Place, hugging_face_place, official_place};

use crate::checkpoint::{Checkpoint, SourceTensor};

/// Name segments that PyTorch's wrapper modules insert. They carry no meaning.
const WRAPPERS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// Names of the patch embedding, which mark the start of a backbone: official code and timm, Hugging Face.
const ANCHORS: [&str; 2] = ["patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"];
/// Name segments of the averaged copy of the weights, preferred if a training checkpoint has several copies.
const AVERAGED: [&str; 4] = ["teacher", "ema", "model_ema", "state_dict_ema"];

/// Most number types that a message lists.
const MAX_SHOWN_TYPES: usize = 4;

/// Naming scheme of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// The official code's names, most of which timm uses too.
    Official,
    /// Names or shapes that only timm produces.
    Timm,
    /// Hugging Face's names.
    HuggingFace,
}

/// A tensor under its canonical name, not yet read: parts stacked along the outermost dimension.
#[derive(Clone, Debug)]
pub struct NamedTensor {
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Numbers of the source.
    Source(SourceTensor),
    /// This number of zeros.
    Zeros(usize),
}

/// A backbone under canonical names.
#[derive(Clone, Debug)]
pub struct NamedBackbone {
    /// Tensors by canonical name.
    pub tensors: BTreeMap<String, NamedTensor>,
    /// Naming scheme that the source used.
    pub dialect: Dialect,
    /// Number of tensors of the source outside the backbone.
    pub ignored: usize,
    /// Remarks for the user on how the source was read.
    pub notes: Vec<String>,
}

impl NamedTensor {
    /// A tensor of the source.
    pub(crate) fn whole(tensor: SourceTensor) -> Self {
        Self { shape: tensor.shape().to_vec(), parts: vec![Part::Source(tensor)] }
    }

    /// Zeros of this shape.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), parts: vec![Part::Zeros(shape.iter().product())] }
    }

    /// The tensor of the source, if it is the only part.
    pub(crate) fn sole_part(&self) -> Option<&SourceTensor> {
        match self.parts.as_slice() {
            [Part::Source(tensor)] => Some(tensor),
            _ => None,
        }
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

/// Finds the backbone of a checkpoint and gives its tensors canonical names. The position table keeps the source's form;
/// [`crate::infer`] converts it to that of a model file.
///
/// # Errors
/// If there is no backbone or more than one, a tensor inside a block that DINOv2 does not have, or a tensor of a number
/// type that is not read.
pub fn canonical(checkpoint: &Checkpoint) -> Result<NamedBackbone, String> {
    let plain = unwrapped_names(&checkpoint.tensors)?;
    let unread: BTreeMap<String, &String> =
        checkpoint.unread.iter().map(|(name, dtype)| (unwrapped(name), dtype)).collect();
    let (prefix, anchor) = find_prefix(&plain, &unread)?;
    let hugging_face = anchor == ANCHORS[1];
    let locals = plain.keys().chain(unread.keys()).filter_map(|name| name.strip_prefix(prefix.as_str()));
    let numbering = if hugging_face { Numbering::Plain } else { Numbering::of(locals)? };
    let place = |name: &str| {
        name.strip_prefix(prefix.as_str()).map(|local| match hugging_face {
            true => hugging_face_place(local),
            false => official_place(local, &numbering),
        })
    };
    for (name, dtype) in &unread {
        let in_block =
            || ["blocks.", "encoder.layer."].iter().any(|part| name[prefix.len()..].starts_with(part));
        let wanted = match place(name) {
            Some(Place::Whole(_) | Place::Part { .. }) => true,
            Some(Place::Unexpected) => in_block(),
            Some(Place::Outside) | None => false,
        };
        if wanted {
            return Err(format!(
                "tensor {name:?}: expected the number type f64, f32, f16 or bf16, got {dtype} (quantized weights are not \
                 read: convert the checkpoint that they were made from)"
            ));
        }
    }
    let mut found = Found::default();
    for (name, tensor) in &plain {
        let twice = |name: &str| format!("tensor {name:?}: expected one, got two");
        match place(name) {
            Some(Place::Part { name, part, of }) => {
                let parts = found.parts.entry(name.clone()).or_insert_with(|| vec![None; of]);
                if parts[part].replace((*tensor).clone()).is_some() {
                    return Err(twice(&name));
                }
            }
            Some(Place::Whole(name)) => {
                if found.whole.insert(name.clone(), (*tensor).clone()).is_some() {
                    return Err(twice(&name));
                }
            }
            Some(Place::Unexpected) => {
                return Err(format!("tensor {name:?}: expected only what a DINOv2 block has, got this"));
            }
            Some(Place::Outside) | None => found.ignored += 1,
        }
    }
    found.timm |= plain.contains_key(&format!("{prefix}reg_token"));
    found.finish(hugging_face)
}

/// The tensors by their names without wrapper segments.
fn unwrapped_names(
    tensors: &BTreeMap<String, SourceTensor>,
) -> Result<BTreeMap<String, &SourceTensor>, String> {
    let mut plain = BTreeMap::new();
    for (name, tensor) in tensors {
        let unwrapped = unwrapped(name);
        if plain.insert(unwrapped.clone(), tensor).is_some() {
            return Err(format!("tensor {unwrapped:?}: expected one, got two"));
        }
    }
    Ok(plain)
}

/// The name without wrapper segments.
fn unwrapped(name: &str) -> String {
    let segments: Vec<&str> = name.split('.').filter(|segment| !WRAPPERS.contains(segment)).collect();
    segments.join(".")
}

/// The prefix of the patch embedding, and which of [`ANCHORS`] it is.
fn find_prefix(
    plain: &BTreeMap<String, &SourceTensor>,
    unread: &BTreeMap<String, &String>,
) -> Result<(String, &'static str), String> {
    let mut found: Vec<(String, &'static str)> = Vec::new();
    for name in plain.keys().chain(unread.keys()) {
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
            "checkpoint: expected a DINOv2 backbone ({} or {}), got none among {} tensors{}",
            ANCHORS[0],
            ANCHORS[1],
            plain.len(),
            of_other_types(unread)
        )),
        [one] => Ok(one.clone()),
        several => {
            let prefixes: Vec<&str> = several.iter().map(|(prefix, _)| prefix.as_str()).collect();
            Err(format!("checkpoint: expected one DINOv2 backbone, got {} under {prefixes:?}", several.len()))
        }
    }
}

/// Part of a message: how many tensors have number types that are not read, and which types.
fn of_other_types(unread: &BTreeMap<String, &String>) -> String {
    let types: BTreeSet<&str> = unread.values().map(|dtype| dtype.as_str()).collect();
    match unread.len() {
        0 => String::new(),
        count => {
            let types = types.into_iter().take(MAX_SHOWN_TYPES).collect::<Vec<_>>().join(", ");
            format!(" and {count} of number types that are not read ({types})")
        }
    }
}

#[derive(Default)]
struct Found {
    whole: BTreeMap<String, SourceTensor>,
    parts: BTreeMap<String, Vec<Option<SourceTensor>>>,
    ignored: usize,
    timm: bool,
}

impl Found {
    fn finish(mut self, hugging_face: bool) -> Result<NamedBackbone, String> {
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
        let timm = self.timm | rename_packed_swiglu(&mut tensors);
        let dialect = match (hugging_face, timm) {
            (true, _) => Dialect::HuggingFace,
            (false, true) => Dialect::Timm,
            (false, false) => Dialect::Official,
        };
        Ok(NamedBackbone { tensors, dialect, ignored: self.ignored, notes: Vec::new() })
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

/// timm names a packed SwiGLU `fc1` and `fc2`; `fc1` then has twice as many rows as `fc2` has columns. The halves are in
/// the official order. Returns whether anything was renamed.
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
