//! Cuts the kept blocks, heads, units and channels out of a model's tensors.

use candle_core::{Device, Tensor};
use dinov2_core::VitSpec;
use dinov2_weights::Model;
use dinov2_weights::layout::slots;

use super::PruneError;
use crate::vit::Parameters;

/// The kept parts of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Shape of the result.
    pub spec: VitSpec,
    /// Blocks, ascending.
    pub blocks: Vec<usize>,
    /// Heads of every kept block, ascending.
    pub heads: Vec<Vec<usize>>,
    /// MLP units of every kept block, ascending.
    pub units: Vec<Vec<usize>>,
    /// Channels of the residual stream, ascending.
    pub channels: Vec<usize>,
}

impl Kept {
    /// These blocks as they are.
    pub(super) fn whole(source: &VitSpec, blocks: Vec<usize>) -> Self {
        let all = |count: usize| (0..count).collect::<Vec<_>>();
        let mut spec = source.clone();
        spec.depth = blocks.len();
        Self {
            heads: vec![all(source.heads); blocks.len()],
            units: vec![all(source.mlp_hidden); blocks.len()],
            channels: all(source.dim),
            spec,
            blocks,
        }
    }
}

/// Tensors of some blocks, renumbered.
pub(super) fn keep_blocks(parameters: &Parameters, blocks: &[usize]) -> Parameters {
    let renamed = parameters.iter().filter_map(|(name, tensor)| {
        let Some(rest) = name.strip_prefix("blocks.") else { return Some((name.to_owned(), tensor.clone())) };
        let (index, part) = rest.split_once('.')?;
        let place = blocks.iter().position(|block| index.parse() == Ok(*block))?;
        Some((format!("blocks.{place}.{part}"), tensor.clone()))
    });
    renamed.collect()
}

/// Kept positions along an axis.
type Places = Vec<usize>;

/// The kept tensors in f32, without registers beyond the model's.
pub(super) fn slice(model: &Model, kept: &Kept) -> Result<Parameters, PruneError> {
    let mut spec = kept.spec.clone();
    spec.registers = model.spec().registers;
    spec.position_table = model.spec().position_table;
    let tensors = slots(&spec).into_iter().filter_map(|slot| {
        let (name, block) = source_name(&slot.name, kept);
        if slot.optional && model.tensor(&name).is_err() {
            return None;
        }
        Some(cut(model, &name, block, kept).map(|tensor| (slot.name, tensor)))
    });
    tensors.collect()
}

/// The name in the model, and the place of the block among those kept.
fn source_name(name: &str, kept: &Kept) -> (String, Option<usize>) {
    let parsed = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    match parsed.and_then(|(index, part)| Some((index.parse::<usize>().ok()?, part))) {
        Some((index, part)) => (format!("blocks.{}.{part}", kept.blocks[index]), Some(index)),
        None => (name.to_owned(), None),
    }
}

fn cut(model: &Model, name: &str, block: Option<usize>, kept: &Kept) -> Result<Tensor, PruneError> {
    let shape = model.tensor(name)?.shape.to_vec();
    let numbers = &model.f32(name)?;
    let (rows, cols) = axes(model.spec(), name, block, kept);
    // Everything is [outputs, inputs…], tokens are [.., dim]: the channels are the last axis.
    let is_token = block.is_none() && !name.starts_with("patch_embed") && !name.starts_with("norm");
    let (row_count, width) = match shape.len() {
        1 => (shape[0], 1),
        _ if is_token => (shape.iter().rev().skip(1).product(), shape[shape.len() - 1]),
        _ => (shape[0], shape[1..].iter().product()),
    };
    let rows = rows.filter(|_| !is_token).unwrap_or_else(|| (0..row_count).collect());
    let cols = cols.unwrap_or_else(|| (0..width).collect());
    let values: Vec<f32> =
        rows.iter().flat_map(|row| cols.iter().map(move |col| numbers[row * width + col])).collect();
    let mut shape = shape;
    let last = shape.len() - 1;
    if is_token || (shape.len() == 2) {
        shape[last] = cols.len();
    }
    if !is_token {
        shape[0] = rows.len();
    }
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// What is kept of outputs and of inputs; `None` for all.
fn axes(source: &VitSpec, name: &str, block: Option<usize>, kept: &Kept) -> (Option<Places>, Option<Places>) {
    let channels = || Some(kept.channels.clone());
    let Some(block) = block else {
        // Tokens and tables have channels last, the patch embedding and the last norm first.
        return if name.starts_with("patch_embed") || name.starts_with("norm") {
            (channels(), None)
        } else {
            (None, channels())
        };
    };
    let width = source.head_dim();
    let heads: Places = kept.heads[block].iter().flat_map(|head| head * width..(head + 1) * width).collect();
    let units = &kept.units[block];
    let repeated = |places: &[usize], size: usize, times: usize| -> Places {
        (0..times).flat_map(|part| places.iter().map(move |place| part * size + place)).collect()
    };
    let is_weight = name.ends_with(".weight");
    let inputs = |places: Option<Places>| if is_weight { places } else { None };
    match name.splitn(3, '.').nth(2).unwrap_or_default().trim_end_matches(".weight").trim_end_matches(".bias")
    {
        "attn.qkv" => (Some(repeated(&heads, source.dim, 3)), inputs(channels())),
        "attn.proj" => (channels(), inputs(Some(heads))),
        "mlp.fc1" => (Some(units.clone()), inputs(channels())),
        "mlp.w12" => (Some(repeated(units, source.mlp_hidden, 2)), inputs(channels())),
        "mlp.fc2" | "mlp.w3" => (channels(), inputs(Some(units.clone()))),
        _ => (channels(), None),
    }
}
