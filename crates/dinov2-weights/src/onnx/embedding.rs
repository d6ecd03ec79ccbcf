//! The part of a graph before the first block: patch embedding, CLS, registers and the position table.

use std::collections::HashSet;

use dinov2_core::PatchGrid;

use super::constants::{self, Constants};
use super::graph::Graph;
use super::position_note::PositionNote;
use super::proto::{ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::checkpoint::{SourceDtype, SourceTensor};

pub(super) struct Embedding<'a> {
    /// The graph input that the patch embedding reads.
    pub(super) pixels: &'a ValueInfoProto,
    pub(super) patch_weight: &'a TensorProto,
    pub(super) patch_bias: Option<&'a TensorProto>,
    /// CLS, then registers: `[prefix, dim]`.
    pub(super) prefix: Vec<f32>,
    /// `[1 + patches, dim]`; row 0 is the CLS position.
    pub(super) positions: Vec<f32>,
    /// Grid of the position table.
    pub(super) grid: PatchGrid,
    /// The node that resamples the position table, if the graph does.
    pub(super) resize: Option<&'a NodeProto>,
    /// The graph input that takes the position table, if the graph leaves it to its user.
    pub(super) positions_input: Option<&'a str>,
}

/// A sum or concatenation met on the way back from the tokens to the pixels.
enum Step<'a> {
    Positions(&'a str),
    /// A graph input is added as the position table.
    PositionsInput(&'a str),
    /// Constants joined before the patches (or between CLS and the patches).
    Prefix(Vec<&'a TensorProto>, Place),
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Front,
    AfterPrefix,
}

/// Reads the embedding that writes `tokens`, and the note about positions that our own exports carry.
///
/// # Errors
/// What was expected where the graph does something else.
pub(super) fn read<'a>(
    graph: &Graph<'a>,
    constants: &Constants,
    tokens: &'a str,
    model: &ModelProto,
) -> Result<(Embedding<'a>, Option<PositionNote>), String> {
    let (convolution, bias, steps) = walk_back(graph, tokens)?;
    let pixels = convolution.input_at(0).and_then(|name| graph.input(name));
    let pixels = pixels.ok_or("patch embedding: expected to read a graph input, got computed pixels")?;
    let (patch_weight, dim, patch) = patch_weight(graph, convolution)?;
    let note = PositionNote::of(model, dim)?;
    let positions_input = steps.iter().find_map(|step| match step {
        Step::PositionsInput(name) => Some(*name),
        _ => None,
    });
    let mut reader =
        Reader { graph, constants, dim, note: note.as_ref(), prefix: Vec::new(), positions: None };
    for step in steps.into_iter().rev() {
        reader.apply(step)?;
    }
    let Reader { prefix, positions, .. } = reader;
    let positions = positions.ok_or("position table: expected one added to the tokens, got none")?;
    if prefix.is_empty() {
        return Err("class token: expected a constant before the patches, got none".into());
    }
    let baked = positions.resize.is_none().then(|| grid_of_input(pixels, patch)).flatten();
    let embedding = Embedding {
        pixels,
        patch_weight,
        patch_bias: convolution.input_at(2).and_then(|name| graph.constant(name)).or(bias),
        prefix,
        grid: table_grid(&positions, baked, positions.rows.len() / dim - 1)?,
        positions: positions.rows,
        resize: positions.resize,
        positions_input,
    };
    Ok((embedding, note))
}

/// The weight `[dim, 3, patch, patch]` of a patch embedding, `dim` and `patch`.
fn patch_weight<'a>(
    graph: &Graph<'a>,
    convolution: &'a NodeProto,
) -> Result<(&'a TensorProto, usize, usize), String> {
    let weight = convolution.input_at(1).and_then(|name| graph.constant(name));
    let weight = weight.ok_or("patch embedding: expected a constant weight")?;
    let &[dim, 3, height, width] = constants::shape(weight)?.as_slice() else {
        return Err(format!("patch embedding: expected [dim, 3, patch, patch], got {:?}", weight.dims));
    };
    let strides = convolution.attribute("strides").map_or(&[][..], |attribute| &attribute.ints);
    let stride = i64::try_from(width).map_err(|_| "patch embedding: impossible size")?;
    if height != width || dim == 0 || strides != [stride, stride] {
        let size = [height, width];
        return Err(format!(
            "patch embedding: expected square patches side by side, got {size:?} every {strides:?}"
        ));
    }
    Ok((weight, dim, width))
}

/// Grid of a table of `patches`: as stored, as baked for the size of the graph input, or square.
fn table_grid(positions: &Positions, baked: Option<PatchGrid>, patches: usize) -> Result<PatchGrid, String> {
    let side = patches.isqrt();
    let square = Some(PatchGrid { rows: side, cols: side });
    let grid = [positions.grid, baked, square].into_iter().flatten().find(|grid| grid.len() == patches);
    grid.ok_or_else(|| format!("position table: expected a known grid, got {patches} patches"))
}

/// Grid of a graph input of known size, for position tables that were resampled at export.
fn grid_of_input(pixels: &ValueInfoProto, patch: usize) -> Option<PatchGrid> {
    let sides = pixels.sides()?;
    let &[_, _, Some(height), Some(width)] = sides.as_slice() else { return None };
    PatchGrid::of_image(usize::try_from(width).ok()?, usize::try_from(height).ok()?, patch).ok()
}

type Walk<'a> = (&'a NodeProto, Option<&'a TensorProto>, Vec<Step<'a>>);

fn walk_back<'a>(graph: &Graph<'a>, tokens: &'a str) -> Result<Walk<'a>, String> {
    let (mut value, mut bias, mut steps) = (graph.root(tokens), None, Vec::new());
    loop {
        let unknown = |got: &str| format!("embedding: expected patches, CLS and positions, got {got:.60}");
        let node = graph.producer(value).ok_or_else(|| unknown(value))?;
        let live: HashSet<&str> = graph.live_inputs(node).collect();
        if live.is_empty() {
            return Err(unknown(&node.op_type));
        }
        match node.op_type.as_str() {
            "Conv" => return Ok((node, bias, steps)),
            "Reshape" | "Flatten" | "Transpose" | "Squeeze" | "Unsqueeze" | "Slice" | "Gather" | "Split" => {
                value = graph.root(
                    node.input_at(0)
                        .filter(|input| graph.is_live(input))
                        .ok_or_else(|| unknown(&node.op_type))?,
                );
            }
            "Add" => {
                let fixed =
                    node.input.iter().map(|input| graph.root(input)).find(|input| !live.contains(input));
                let Some(fixed) = fixed else {
                    let (input, tokens) = positions_input(graph, node)?;
                    steps.push(Step::PositionsInput(input));
                    value = tokens;
                    continue;
                };
                value = live.into_iter().next().ok_or_else(|| unknown("Add"))?;
                let is_bias =
                    |tensor: &&TensorProto| tensor.dims.iter().filter(|&&side| side > 1).count() <= 1;
                match graph.constant(fixed).filter(is_bias) {
                    Some(tensor) if graph.producer(value).is_some_and(|node| node.is("Conv")) => {
                        bias = Some(tensor)
                    }
                    _ => steps.push(Step::Positions(fixed)),
                }
            }
            "Concat" => {
                let (next, step) = joined(graph, node)?;
                steps.push(step);
                value = next;
            }
            other => return Err(unknown(other)),
        }
    }
}

/// For the sum of tokens and a graph input: the name of that input, and the tokens.
fn positions_input<'a>(graph: &Graph<'a>, addition: &'a NodeProto) -> Result<(&'a str, &'a str), String> {
    let [left, right] = addition.input.as_slice() else {
        return Err("embedding: expected a sum of two".into());
    };
    match (graph.input(left), graph.input(right)) {
        (None, Some(input)) => Ok((input.name.as_str(), graph.root(left))),
        (Some(input), None) => Ok((input.name.as_str(), graph.root(right))),
        _ => Err("position table: expected a constant, got a value that depends on the pixels".into()),
    }
}

/// `[constants.., tokens]`, or `[first token, constants.., other tokens]`.
fn joined<'a>(graph: &Graph<'a>, node: &'a NodeProto) -> Result<(&'a str, Step<'a>), String> {
    let mut tokens = Vec::new();
    let mut added = Vec::new();
    for input in node.input.iter().map(|input| graph.root(input)) {
        if graph.is_live(input) {
            tokens.push(input);
        } else if tokens.len() < 2 {
            added.push(graph.constant(input).ok_or_else(|| format!("tokens: expected constant {input:?}"))?);
        }
    }
    let place = match tokens.len() {
        1 if node.input.last().is_some_and(|last| graph.is_live(last)) => Place::Front,
        2 if node.input.first().is_some_and(|first| graph.is_live(first)) => Place::AfterPrefix,
        _ => return Err(format!("tokens: expected constants before the patches at node {:?}", node.name)),
    };
    Ok((tokens[0], Step::Prefix(added, place)))
}

struct Positions<'a> {
    rows: Vec<f32>,
    grid: Option<PatchGrid>,
    resize: Option<&'a NodeProto>,
}

/// Replays the steps in the order of the graph.
struct Reader<'a, 'g> {
    graph: &'g Graph<'a>,
    constants: &'g Constants,
    dim: usize,
    note: Option<&'g PositionNote>,
    prefix: Vec<f32>,
    positions: Option<Positions<'a>>,
}

impl<'a> Reader<'a, '_> {
    fn apply(&mut self, step: Step<'a>) -> Result<(), String> {
        match step {
            Step::Prefix(added, place) => {
                let mut rows = Vec::new();
                for tensor in added {
                    rows.extend(self.rows(&self.constants.tensor(tensor)?)?);
                }
                let at = if place == Place::Front { 0 } else { self.prefix.len() };
                self.prefix.splice(at..at, rows);
                Ok(())
            }
            _ if self.positions.is_some() => Err("position table: expected one, got several".into()),
            Step::PositionsInput(_) | Step::Positions(_) => {
                let mut positions = match (self.note, step) {
                    (Some(note), _) => {
                        Positions { rows: note.table.clone(), grid: Some(note.grid), resize: None }
                    }
                    (None, Step::Positions(value)) => self.positions_at(value)?,
                    _ => return Err("position table: expected a constant, got a graph input".into()),
                };
                match self.prefix.len() / self.dim {
                    // Positions of the patches only (timm with registers): the CLS token has none.
                    0 => drop(positions.rows.splice(0..0, vec![0.0; self.dim])),
                    1 => {}
                    rows => {
                        return Err(format!(
                            "position table: expected it before the registers, got {rows} tokens"
                        ));
                    }
                }
                self.positions = Some(positions);
                Ok(())
            }
        }
    }

    /// The table that `value` is, or is resampled from.
    fn positions_at(&self, value: &'a str) -> Result<Positions<'a>, String> {
        let (tables, resize) = self.float_constants(value);
        let mut rows = Vec::new();
        let mut grid = None;
        for tensor in &tables {
            let table = self.constants.tensor(tensor)?;
            let table = match *table.shape() {
                [1, height, width, dim] if dim == self.dim => {
                    grid = Some(PatchGrid { rows: height, cols: width });
                    table
                }
                [1, dim, height, width] if dim == self.dim => {
                    grid = Some(PatchGrid { rows: height, cols: width });
                    self.channels_last(&table, height, width)?
                }
                _ => table,
            };
            rows.extend(self.rows(&table)?);
        }
        match (tables.len(), rows.len() / self.dim) {
            (1 | 2, 2..) => Ok(Positions { rows, grid, resize }),
            (count, _) => {
                Err(format!("position table: expected one constant (or CLS and patches), got {count}"))
            }
        }
    }

    /// Constants of whole tokens behind a value, the CLS position first, and the node that resamples them.
    fn float_constants(&self, value: &'a str) -> (Vec<&'a TensorProto>, Option<&'a NodeProto>) {
        let (mut found, mut resize, mut seen) = (Vec::<&TensorProto>::new(), None, HashSet::new());
        let mut waiting = vec![value];
        while let Some(value) = waiting.pop() {
            let value = self.graph.root(value);
            if !seen.insert(value) {
                continue;
            }
            if let Some(tensor) = self.graph.constant(value) {
                let elements = constants::elements(tensor).unwrap_or(0);
                let tokens = elements > 0 && elements.is_multiple_of(self.dim) && tensor.dims.len() >= 2;
                let known = found.iter().any(|&known| std::ptr::eq(known, tensor));
                if tokens && !known && constants::integers(tensor).is_none() {
                    found.push(tensor);
                }
            } else if let Some(node) = self.graph.producer(value) {
                if node.is("Resize") || node.is("Upsample") {
                    resize = Some(node);
                }
                let fixed = node.input.iter().map(String::as_str).filter(|input| !self.graph.is_live(input));
                waiting.extend(fixed.filter(|input| !input.is_empty()));
            }
        }
        found.sort_by_key(|tensor| constants::elements(tensor));
        (found, resize)
    }

    /// `[1, dim, height, width]` as `[height * width, dim]`.
    fn channels_last(
        &self,
        table: &SourceTensor,
        height: usize,
        width: usize,
    ) -> Result<SourceTensor, String> {
        let values = table.to_f32();
        let patches = height.checked_mul(width).filter(|&patches| patches * self.dim == values.len());
        let patches = patches.ok_or("position table: impossible size")?;
        let moved = (0..patches).flat_map(|patch| (0..self.dim).map(move |channel| (patch, channel)));
        let bytes: Vec<u8> =
            moved.flat_map(|(patch, channel)| values[channel * patches + patch].to_le_bytes()).collect();
        SourceTensor::contiguous(SourceDtype::F32, vec![patches, self.dim], bytes.into())
    }

    /// A constant as rows of tokens.
    fn rows(&self, table: &SourceTensor) -> Result<Vec<f32>, String> {
        let shape = table.shape();
        if shape.last() != Some(&self.dim) {
            return Err(format!("tokens: expected rows of {}, got a constant {shape:?}", self.dim));
        }
        Ok(table.to_f32())
    }
}
