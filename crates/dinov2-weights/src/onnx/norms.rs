//! The LayerNorms of a graph: one node, or the nine that exporters before opset 17 write.

use std::collections::HashMap;

use super::constants::{self, Constants};
use super::graph::Graph;
use super::proto::{NodeProto, TensorProto};

/// Default of the LayerNormalization operator.
const DEFAULT_EPSILON: f32 = 1e-5;

/// A LayerNorm over the last dimension.
#[derive(Clone, Copy)]
pub(super) struct Norm<'a> {
    pub(super) input: &'a str,
    pub(super) output: &'a str,
    pub(super) weight: &'a TensorProto,
    pub(super) bias: Option<&'a TensorProto>,
    pub(super) epsilon: f32,
}

/// Every LayerNorm, in the order of the graph, also by the value that it writes.
pub(super) struct Norms<'a> {
    pub(super) all: Vec<Norm<'a>>,
    by_output: HashMap<&'a str, usize>,
}

impl<'a> Norms<'a> {
    pub(super) fn find(graph: &Graph<'a>) -> Self {
        let all: Vec<Norm> = graph
            .nodes()
            .iter()
            .filter_map(|node| fused(graph, node).or_else(|| from_primitives(graph, node)))
            .collect();
        let by_output = all.iter().enumerate().map(|(index, norm)| (norm.output, index)).collect();
        Self { all, by_output }
    }

    /// The LayerNorm that writes this value.
    pub(super) fn writing(&self, value: &str) -> Option<&Norm<'a>> {
        self.by_output.get(value).map(|&index| &self.all[index])
    }

    /// The first LayerNorm that reads this value.
    pub(super) fn reading(&self, value: &str) -> Option<&Norm<'a>> {
        self.all.iter().find(|norm| norm.input == value)
    }
}

fn fused<'a>(graph: &Graph<'a>, node: &'a NodeProto) -> Option<Norm<'a>> {
    let input = graph.root(node.input_at(0)?);
    let last_axis = node.int("axis").is_none_or(|axis| axis == -1 || axis == 2);
    if !node.is("LayerNormalization") || !graph.is_live(input) || !last_axis {
        return None;
    }
    let bias = match node.input_at(2) {
        Some(name) => Some(graph.constant(name)?),
        None => None,
    };
    let epsilon = node.attribute("epsilon").and_then(|attribute| attribute.f).unwrap_or(DEFAULT_EPSILON);
    Some(Norm {
        input,
        output: node.output.first()?,
        weight: graph.constant(node.input_at(1)?)?,
        bias,
        epsilon,
    })
}

/// `(x - mean) / sqrt(mean((x - mean)^2) + epsilon) * weight + bias`, recognised at the division.
fn from_primitives<'a>(graph: &Graph<'a>, division: &'a NodeProto) -> Option<Norm<'a>> {
    let written_by = |name: &str, op_type: &str| graph.producer(name).filter(|node| node.is(op_type));
    if !division.is("Div") {
        return None;
    }
    let difference = written_by(division.input_at(0)?, "Sub")?;
    let input = graph.root(difference.input_at(0)?);
    let mean = written_by(difference.input_at(1)?, "ReduceMean")?;
    let root = written_by(division.input_at(1)?, "Sqrt")?;
    let sum = written_by(root.input_at(0)?, "Add")?;
    let (variance, epsilon) = graph.live_and_constant(sum)?;
    written_by(variance, "ReduceMean")?;
    if graph.root(mean.input_at(0)?) != input {
        return None;
    }
    let scaled = graph.consumers(division.output.first()?).find(|node| node.is("Mul"))?;
    let (_, weight) = graph.live_and_constant(scaled)?;
    let product = scaled.output.first()?;
    let shifted = graph.consumers(product).find_map(|node| {
        let (_, bias) = graph.live_and_constant(node).filter(|_| node.is("Add"))?;
        (constants::elements(bias) == constants::elements(weight)).then_some((node.output.first()?, bias))
    });
    let (output, bias) = match shifted {
        Some((output, bias)) => (output, Some(bias)),
        None => (product, None),
    };
    Some(Norm { input, output, weight, bias, epsilon: scalar(epsilon)? })
}

/// The value of a float constant of one element.
fn scalar(tensor: &TensorProto) -> Option<f32> {
    let value = Constants::new(None).tensor(tensor).ok()?;
    (value.len() == 1).then(|| value.to_f32()[0])
}
