//! A graph indexed for pattern matching: the writer and the readers of each value, which values are constants, and which
//! depend on the pixels.
//!
//! Values that are another value under a new name (Identity, Cast, Dropout) are resolved to it everywhere, so
//! patterns do not see those nodes.

use std::collections::{HashMap, HashSet};

use super::constants;
use super::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// Operators that keep every element in row-major order.
const RESHAPES: [&str; 4] = ["Reshape", "Squeeze", "Unsqueeze", "Flatten"];

pub(super) struct Graph<'a> {
    nodes: &'a [NodeProto],
    inputs: HashMap<&'a str, &'a ValueInfoProto>,
    aliases: HashMap<&'a str, &'a str>,
    producers: HashMap<&'a str, usize>,
    consumers: HashMap<&'a str, Vec<usize>>,
    tensors: HashMap<&'a str, &'a TensorProto>,
    live: HashSet<&'a str>,
}

impl<'a> Graph<'a> {
    /// Indexes a graph.
    ///
    /// # Errors
    /// A value that is written twice, or read before it is written.
    pub(super) fn new(graph: &'a GraphProto) -> Result<Self, String> {
        let tensors: HashMap<&str, &TensorProto> =
            graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let inputs: HashMap<&str, &ValueInfoProto> = (graph.input.iter())
            .map(|input| (input.name.as_str(), input))
            .filter(|(name, _)| !tensors.contains_key(name))
            .collect();
        let live = inputs.keys().copied().collect();
        let mut index = Self {
            nodes: &graph.node,
            inputs,
            aliases: HashMap::new(),
            producers: HashMap::new(),
            consumers: HashMap::new(),
            tensors,
            live,
        };
        for position in 0..graph.node.len() {
            index.add(position)?;
        }
        Ok(index)
    }

    fn add(&mut self, position: usize) -> Result<(), String> {
        let node = &self.nodes[position];
        for input in node.input.iter().filter(|name| !name.is_empty()) {
            let known = self.tensors.contains_key(input.as_str())
                || self.inputs.contains_key(input.as_str())
                || self.producers.contains_key(input.as_str());
            if !known {
                let name = &node.name;
                return Err(format!("node {name:?}: expected values written before, got {input:?}"));
            }
            let root = self.root(input);
            self.consumers.entry(root).or_default().push(position);
        }
        let sees_pixels = node.op_type != "Shape" && node.op_type != "Size";
        let live = sees_pixels && node.input.iter().any(|input| self.is_live(input));
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            let taken =
                self.tensors.contains_key(output.as_str()) || self.inputs.contains_key(output.as_str());
            if taken || self.producers.insert(output, position).is_some() {
                return Err(format!("value {output:?}: expected one node that writes it, got several"));
            }
            if live {
                self.live.insert(output);
            }
        }
        if let (Some(input), Some(output)) = (node.input_at(0), node.output.first())
            && ["Identity", "Cast", "Dropout"].iter().any(|op_type| node.is(op_type))
        {
            self.aliases.insert(output, self.root(input));
        }
        if node.is("Constant") {
            let value = node.attribute("value").and_then(|attribute| attribute.t.as_ref());
            if let (Some(output), Some(tensor)) = (node.output.first(), value) {
                self.tensors.insert(output, tensor);
            }
        }
        Ok(())
    }

    /// The value that `name` is another name of.
    pub(super) fn root<'b>(&self, name: &'b str) -> &'b str
    where
        'a: 'b,
    {
        self.aliases.get(name).copied().unwrap_or(name)
    }

    /// Whether the value depends on a graph input by more than its shape.
    pub(super) fn is_live(&self, name: &str) -> bool {
        self.live.contains(name)
    }

    /// The graph input behind this value, if it is one.
    pub(super) fn input(&self, name: &str) -> Option<&'a ValueInfoProto> {
        self.inputs.get(self.root(name)).copied()
    }

    /// The node that writes the value.
    pub(super) fn producer(&self, name: &str) -> Option<&'a NodeProto> {
        self.producers.get(self.root(name)).map(|&position| &self.nodes[position])
    }

    /// The nodes that read the value, in the order of the graph.
    pub(super) fn consumers(&self, name: &str) -> impl Iterator<Item = &'a NodeProto> + '_ {
        let positions = self.consumers.get(self.root(name));
        positions.into_iter().flatten().map(|&position| &self.nodes[position])
    }

    /// Every node, in the order of the graph.
    pub(super) fn nodes(&self) -> &'a [NodeProto] {
        self.nodes
    }

    /// The constant behind a value whose elements keep their order on the way (Reshape, Unsqueeze, Expand of a
    /// batch of one…).
    pub(super) fn constant(&self, name: &str) -> Option<&'a TensorProto> {
        let mut name = self.root(name);
        loop {
            if let Some(tensor) = self.tensors.get(name) {
                return Some(tensor);
            }
            let node = self.producer(name)?;
            if !RESHAPES.contains(&node.op_type.as_str()) && !node.is("Expand") {
                return None;
            }
            name = self.root(node.input_at(0)?);
        }
    }

    /// A constant matrix, and whether the graph transposes it before use.
    pub(super) fn matrix(&self, name: &str) -> Option<(&'a TensorProto, bool)> {
        let (mut name, mut transposed) = (self.root(name), false);
        loop {
            if let Some(tensor) = self.tensors.get(name) {
                return (tensor.dims.len() == 2).then_some((tensor, transposed));
            }
            let node = self.producer(name)?;
            let swaps = node.attribute("perm").is_none_or(|perm| perm.ints == [1, 0]);
            if !node.is("Transpose") || !swaps {
                return None;
            }
            transposed = !transposed;
            name = self.root(node.input_at(0)?);
        }
    }

    /// Walks back over Reshape and the like, which keep every element.
    pub(super) fn before_reshapes<'b>(&self, name: &'b str) -> &'b str
    where
        'a: 'b,
    {
        let mut name = self.root(name);
        while let Some(node) = self.producer(name)
            && RESHAPES.contains(&node.op_type.as_str())
            && let Some(input) = node.input_at(0)
            && self.is_live(input)
        {
            name = self.root(input);
        }
        name
    }

    /// The inputs of a node that depend on the pixels.
    pub(super) fn live_inputs(&self, node: &'a NodeProto) -> impl Iterator<Item = &'a str> + '_ {
        node.input.iter().map(|name| self.root(name)).filter(|name| self.is_live(name))
    }

    /// For a two-input node: its one live input and its constant one, in whichever order they are given.
    pub(super) fn live_and_constant(&self, node: &'a NodeProto) -> Option<(&'a str, &'a TensorProto)> {
        let [left, right] = node.input.as_slice() else { return None };
        let (live, fixed) = if self.is_live(left) { (left, right) } else { (right, left) };
        if !self.is_live(live) || self.is_live(fixed) {
            return None;
        }
        Some((self.root(live), self.constant(fixed)?))
    }

    /// What is known of a shape tensor: one entry per side, `None` where it is decided at run time.
    pub(super) fn shape_values(&self, name: &str) -> Vec<Option<i64>> {
        const MOST_SIDES: usize = 16;
        let Some(node) = self.producer(name).filter(|node| node.is("Concat")) else {
            return self.known_sides(name);
        };
        node.input.iter().take(MOST_SIDES).flat_map(|input| self.known_sides(input)).collect()
    }

    fn known_sides(&self, name: &str) -> Vec<Option<i64>> {
        match self.constant(name).and_then(constants::integers) {
            Some(values) => values.into_iter().map(Some).collect(),
            None => vec![None],
        }
    }
}
