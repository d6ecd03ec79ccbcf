//! Writes an ONNX graph node by node. Values have the names of their contents, nodes the name of the value that they write.

use std::collections::HashSet;

use dinov2_weights::onnx::proto::{
    AttributeProto, Dimension, DimensionProto, GraphProto, NodeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto, attribute_type, data_type,
};

/// A side of an input or output.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Known(usize),
    Named(&'static str),
}

/// A graph being written. Every method that adds a node returns the name of the value that it writes.
#[derive(Default)]
pub(crate) struct GraphBuilder {
    graph: GraphProto,
    constants: HashSet<String>,
}

impl GraphBuilder {
    pub(crate) fn new(name: &str) -> Self {
        Self { graph: GraphProto { name: name.into(), ..GraphProto::default() }, constants: HashSet::new() }
    }

    pub(crate) fn finish(self) -> GraphProto {
        self.graph
    }

    /// Declares an f32 input.
    pub(crate) fn input(&mut self, name: &str, sides: &[Side]) {
        self.graph.input.push(value_info(name, sides));
    }

    /// Declares an f32 output.
    pub(crate) fn output(&mut self, name: &str, sides: &[Side]) {
        self.graph.output.push(value_info(name, sides));
    }

    /// Adds a constant under its own name.
    pub(crate) fn constant(&mut self, tensor: TensorProto) -> String {
        let name = tensor.name.clone();
        self.graph.initializer.push(tensor);
        self.constants.insert(name.clone());
        name
    }

    /// Whether there is a constant of this name.
    pub(crate) fn has_constant(&self, name: &str) -> bool {
        self.constants.contains(name)
    }

    /// Adds a constant of integers: a shape or positions.
    pub(crate) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into();
        self.constant(TensorProto {
            name: name.into(),
            dims: vec![values.len() as i64],
            data_type: data_type::INT64,
            raw_data,
            ..TensorProto::default()
        })
    }

    /// A node with one output.
    pub(crate) fn node(
        &mut self,
        op_type: &str,
        output: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.split_node(op_type, &[output], inputs, attributes);
        output.into()
    }

    /// A node with several outputs.
    pub(crate) fn split_node(
        &mut self,
        op_type: &str,
        outputs: &[&str],
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: outputs.iter().map(ToString::to_string).collect(),
            name: format!("/{}/{op_type}", outputs[0].replace('.', "/")),
            op_type: op_type.into(),
            attribute,
            domain: String::new(),
        });
    }

    pub(crate) fn reshape(&mut self, output: &str, value: &str, shape: &[i64]) -> String {
        let shape = self.integers(&format!("{output}.shape"), shape);
        self.node("Reshape", output, &[value, &shape], vec![])
    }

    pub(crate) fn transpose(&mut self, output: &str, value: &str, permutation: &[i64]) -> String {
        self.node("Transpose", output, &[value], vec![ints("perm", permutation)])
    }
}

fn value_info(name: &str, sides: &[Side]) -> ValueInfoProto {
    let dimension = |side: &Side| {
        let value = match *side {
            Side::Known(length) => Dimension::Value(length as i64),
            Side::Named(symbol) => Dimension::Param(symbol.into()),
        };
        DimensionProto { value: Some(value) }
    };
    let shape = TensorShapeProto { dim: sides.iter().map(dimension).collect() };
    let tensor_type = TensorTypeProto { elem_type: data_type::FLOAT, shape: Some(shape) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
        doc_string: String::new(),
    }
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i: Some(value),
        r#type: attribute_type::INT,
        ..AttributeProto::default()
    }
}

pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let ints = values.to_vec();
    AttributeProto { name: name.into(), ints, r#type: attribute_type::INTS, ..AttributeProto::default() }
}

pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        f: Some(value),
        r#type: attribute_type::FLOAT,
        ..AttributeProto::default()
    }
}
