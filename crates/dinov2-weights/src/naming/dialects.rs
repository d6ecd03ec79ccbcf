//! Maps single tensor names of each naming scheme to canonical names.

use std::collections::{BTreeMap, BTreeSet};

/// How block numbers in the official code's names are counted.
pub(super) enum Numbering {
    /// `blocks.N`.
    Plain,
    /// `blocks.CHUNK.N`, where N counts across chunks, as in the official code.
    Through,
    /// `blocks.CHUNK.N`, where N counts within its chunk: the first block of each chunk.
    Within(BTreeMap<usize, usize>),
}

impl Numbering {
    /// Derives the numbering from all names of a backbone.
    pub(super) fn of<'a>(locals: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut chunks: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut plain = false;
        for inner in locals.filter_map(|local| local.strip_prefix("blocks.")) {
            match block_index(inner) {
                Some((Some(chunk), block, _)) => drop(chunks.entry(chunk).or_default().insert(block)),
                Some((None, ..)) => plain = true,
                None => {}
            }
        }
        if plain && !chunks.is_empty() {
            return Err("blocks: expected names like blocks.0. or like blocks.0.0., got both".into());
        }
        if chunks.is_empty() {
            return Ok(Self::Plain);
        }
        let in_order: Vec<usize> = chunks.values().flatten().copied().collect();
        if in_order.is_sorted_by(|first, second| first < second) {
            return Ok(Self::Through);
        }
        let within = chunks.values().all(|blocks| blocks.iter().copied().eq(0..blocks.len()));
        if !within || !chunks.keys().copied().eq(0..chunks.len()) {
            return Err(format!(
                "blocks: expected chunks numbered through or each from 0, got {} chunks that are neither",
                chunks.len()
            ));
        }
        let mut first = 0;
        Ok(Self::Within(
            chunks
                .iter()
                .map(|(&chunk, blocks)| {
                    let start = first;
                    first += blocks.len();
                    (chunk, start)
                })
                .collect(),
        ))
    }

    /// The block's number within the model.
    fn number(&self, chunk: Option<usize>, block: usize) -> usize {
        match (self, chunk) {
            (Self::Within(first), Some(chunk)) => first.get(&chunk).map_or(block, |first| first + block),
            _ => block,
        }
    }
}

/// Where a tensor of the source belongs.
pub(super) enum Place {
    /// The whole of this tensor.
    Whole(String),
    /// Part `part` of `of`, stacked along the output dimension.
    Part { name: String, part: usize, of: usize },
    /// Inside a block, but not a tensor of DINOv2: an error.
    Unexpected,
    /// Outside the backbone.
    Outside,
}

/// Place of a tensor by the names of the official code and timm. `local`: the name without the prefix of the backbone.
pub(super) fn official_place(local: &str, numbering: &Numbering) -> Place {
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
            _ if local.starts_with("norm_pre.") || local.starts_with("patch_embed.") => Place::Unexpected,
            _ => Place::Outside,
        };
    };
    let Some((chunk, block, inner)) = block_index(inner) else { return Place::Unexpected };
    let block = numbering.number(chunk, block);
    let Some((module, field)) = inner.rsplit_once('.') else { return Place::Unexpected };
    let whole = || Place::Whole(format!("blocks.{block}.{inner}"));
    let part = |part| Place::Part { name: format!("blocks.{block}.mlp.w12.{field}"), part, of: 2 };
    match (module, field) {
        ("norm1" | "norm2" | "attn.qkv" | "attn.proj", "weight" | "bias") => whole(),
        ("mlp.fc1" | "mlp.fc2" | "mlp.w12" | "mlp.w3", "weight" | "bias") => whole(),
        ("ls1" | "ls2", "gamma") => whole(),
        ("mlp.fc1_g", "weight" | "bias") => part(0),
        ("mlp.fc1_x", "weight" | "bias") => part(1),
        _ => Place::Unexpected,
    }
}

/// Place of a tensor by the names of Hugging Face. `local`: the name without the prefix of the backbone.
pub(super) fn hugging_face_place(local: &str) -> Place {
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
            _ if local.starts_with("embeddings.") => Place::Unexpected,
            _ => Place::Outside,
        };
    };
    let Some((block, inner)) = inner.split_once('.').and_then(|(block, inner)| Some((number(block)?, inner)))
    else {
        return Place::Unexpected;
    };
    let Some((module, field)) = inner.rsplit_once('.') else { return Place::Unexpected };
    let whole = |module: &str, field: &str| Place::Whole(format!("blocks.{block}.{module}.{field}"));
    let part =
        |module: &str, part, of| Place::Part { name: format!("blocks.{block}.{module}.{field}"), part, of };
    match (module, field) {
        ("layer_scale1", "lambda1") => whole("ls1", "gamma"),
        ("layer_scale2", "lambda1") => whole("ls2", "gamma"),
        (_, field) if !matches!(field, "weight" | "bias") => Place::Unexpected,
        ("norm1" | "norm2" | "mlp.fc1" | "mlp.fc2", _) => whole(module, field),
        ("attention.attention.query" | "attention.q_proj", _) => part("attn.qkv", 0, 3),
        ("attention.attention.key" | "attention.k_proj", _) => part("attn.qkv", 1, 3),
        ("attention.attention.value" | "attention.v_proj", _) => part("attn.qkv", 2, 3),
        ("attention.output.dense" | "attention.o_proj", _) => whole("attn.proj", field),
        ("mlp.weights_in", _) => whole("mlp.w12", field),
        ("mlp.gate_proj", _) => part("mlp.w12", 0, 2),
        ("mlp.up_proj", _) => part("mlp.w12", 1, 2),
        ("mlp.weights_out" | "mlp.down_proj", _) => whole("mlp.w3", field),
        _ => Place::Unexpected,
    }
}

/// Splits `N.rest` or `CHUNK.N.rest` into the chunk, the block and the rest.
fn block_index(inner: &str) -> Option<(Option<usize>, usize, &str)> {
    let (first, rest) = inner.split_once('.')?;
    let first = number(first)?;
    match rest.split_once('.').and_then(|(second, rest)| Some((number(second)?, rest))) {
        Some((block, rest)) => Some((Some(first), block, rest)),
        None => Some((None, first, rest)),
    }
}

/// A block index, capped because names come from outside.
fn number(digits: &str) -> Option<usize> {
    digits.parse().ok().filter(|&number: &usize| number < dinov2_core::limits::MAX_DEPTH)
}
