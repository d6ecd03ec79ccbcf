//! Recognises the blocks of a vision transformer by data flow, because exporters do not keep names.
//!
//! A block is two residual additions: `s + gamma * linear(attention(norm(s)))` and `s + gamma * linear(mlp(norm(s)))`.

use std::collections::HashSet;

use super::constants;
use super::graph::Graph;
use super::norms::{Norm, Norms};
use super::proto::{NodeProto, TensorProto};

/// `input * weight + bias`, from a MatMul or Gemm with a constant matrix.
#[derive(Clone, Copy)]
pub(super) struct Linear<'a> {
    pub(super) input: &'a str,
    /// The value before the bias is added.
    product: &'a str,
    pub(super) weight: &'a TensorProto,
    /// Whether the stored matrix is `[out, in]`; exporters mostly store `[in, out]`.
    pub(super) out_first: bool,
    pub(super) bias: Option<&'a TensorProto>,
}

/// One residual addition: the stream before it, what is added, and the scale of the addition.
pub(super) struct Branch<'a> {
    pub(super) norm: Norm<'a>,
    pub(super) last: Linear<'a>,
    pub(super) gamma: Option<&'a TensorProto>,
    pub(super) sum: &'a str,
}

/// The projections of an attention: one fused matrix or three.
pub(super) enum Projections<'a> {
    Fused(Linear<'a>),
    Separate([Linear<'a>; 3]),
}

pub(super) struct Block<'a> {
    pub(super) attention: Branch<'a>,
    pub(super) projections: Projections<'a>,
    /// Width of a head, where the graph states it.
    pub(super) heads: Option<usize>,
    pub(super) mlp: Branch<'a>,
    pub(super) mlp_first: MlpFirst<'a>,
}

/// The first layer of an MLP.
pub(super) enum MlpFirst<'a> {
    /// `fc1` of a GELU MLP.
    Gelu(Linear<'a>),
    /// `w12` of a SwiGLU, the gate's rows first.
    SwiGlu(Linear<'a>),
    /// A SwiGLU whose gate and values are two matrices.
    GateAndUp([Linear<'a>; 2]),
}

/// The block that begins at `stream`; `None` when the stream goes into no further addition.
///
/// # Errors
/// An addition that is no block of a DINOv2 backbone, with what it lacks.
pub(super) fn block<'a>(
    graph: &Graph<'a>,
    norms: &Norms<'a>,
    stream: &'a str,
    dim: usize,
) -> Result<Option<Block<'a>>, String> {
    let mut problem = None;
    for addition in additions(graph, stream) {
        match attention(graph, norms, stream, addition, dim) {
            Ok((branch, projections, heads)) => {
                let (mlp, mlp_first) = (additions(graph, branch.sum))
                    .map(|addition| feed_forward(graph, norms, branch.sum, addition))
                    .reduce(Result::or)
                    .unwrap_or_else(|| Err("expected an MLP after the attention, got none".into()))?;
                return Ok(Some(Block { attention: branch, projections, heads, mlp, mlp_first }));
            }
            Err(reason) => problem = Some(reason),
        }
    }
    problem.map_or(Ok(None), Err)
}

/// The nodes that add something to `stream` that also depends on the pixels.
fn additions<'a>(graph: &Graph<'a>, stream: &'a str) -> impl Iterator<Item = &'a NodeProto> {
    let additions = graph.consumers(stream).filter(|node| node.is("Add"));
    additions
        .filter(|node| node.input.len() == 2 && graph.live_inputs(node).count() == 2)
        .collect::<Vec<_>>()
        .into_iter()
}

fn attention<'a>(
    graph: &Graph<'a>,
    norms: &Norms<'a>,
    stream: &'a str,
    addition: &'a NodeProto,
    dim: usize,
) -> Result<(Branch<'a>, Projections<'a>, Option<usize>), String> {
    let (last, gamma) = branch_end(graph, stream, addition)?;
    let [query, key, value] = attention_operands(graph, last.input)?;
    let query_path = Path::back_from(graph, query);
    let [query, key, value] = [
        query_path.only_linear("query")?,
        Path::back_from(graph, key).only_linear("key")?,
        Path::back_from(graph, value).only_linear("value")?,
    ];
    let norm = norm_before(graph, norms, stream, query.input)?;
    if [key, value].iter().any(|other| graph.before_reshapes(other.input) != norm.output) {
        return Err("attention: expected query, key and value of the same tokens".into());
    }
    let projections = match query.product == key.product && key.product == value.product {
        true => Projections::Fused(query),
        false => Projections::Separate([query, key, value]),
    };
    let heads = query_path.heads(graph, dim);
    Ok((
        Branch { norm, last, gamma, sum: addition.output.first().ok_or("addition without output")? },
        projections,
        heads,
    ))
}

fn feed_forward<'a>(
    graph: &Graph<'a>,
    norms: &Norms<'a>,
    stream: &'a str,
    addition: &'a NodeProto,
) -> Result<(Branch<'a>, MlpFirst<'a>), String> {
    let (last, gamma) = branch_end(graph, stream, addition)?;
    let first = mlp_first(graph, &Path::back_from(graph, last.input))?;
    let inputs = match &first {
        MlpFirst::Gelu(linear) | MlpFirst::SwiGlu(linear) => [linear.input, linear.input],
        MlpFirst::GateAndUp([gate, up]) => [gate.input, up.input],
    };
    let norm = norm_before(graph, norms, stream, inputs[0])?;
    if graph.before_reshapes(inputs[1]) != norm.output {
        return Err("MLP: expected gate and values of the same tokens".into());
    }
    Ok((Branch { norm, last, gamma, sum: addition.output.first().ok_or("addition without output")? }, first))
}

fn mlp_first<'a>(graph: &Graph<'a>, path: &Path<'a>) -> Result<MlpFirst<'a>, String> {
    let gate = path.nodes.iter().find(|node| node.is("Sigmoid") || node.is("Swish"));
    if path.has("Tanh") || path.nodes.iter().any(|node| is_tanh_gelu(node)) {
        return Err("MLP: expected the exact (erf) GELU, got the tanh approximation".into());
    }
    if path.has("Gelu") || path.has("Erf") {
        return path.only_linear("MLP").map(MlpFirst::Gelu);
    }
    let Some(gate) = gate else {
        let operators: Vec<&str> = path.nodes.iter().map(|node| node.op_type.as_str()).take(8).collect();
        return Err(format!("MLP: expected GELU or SwiGLU, got {operators:?}"));
    };
    let gate = Path::back_from(graph, gate.input_at(0).unwrap_or_default()).only_linear("SwiGLU gate")?;
    match path.linears.iter().find(|linear| linear.product != gate.product) {
        None => Ok(MlpFirst::SwiGlu(gate)),
        Some(&up) if path.linears.len() == 2 => Ok(MlpFirst::GateAndUp([gate, up])),
        Some(_) => Err(format!("SwiGLU: expected two linear layers, got {}", path.linears.len())),
    }
}

fn is_tanh_gelu(node: &NodeProto) -> bool {
    let approximate = node.attribute("approximate").and_then(|attribute| attribute.s.as_ref());
    node.is("Gelu") && approximate.is_some_and(|name| name.as_ref() == b"tanh")
}

/// The last linear layer of what is added to `stream`, and the LayerScale after it.
fn branch_end<'a>(
    graph: &Graph<'a>,
    stream: &'a str,
    addition: &'a NodeProto,
) -> Result<(Linear<'a>, Option<&'a TensorProto>), String> {
    let stream = graph.root(stream);
    let other = graph.live_inputs(addition).find(|&input| input != stream);
    let branch = graph.before_reshapes(other.ok_or("expected a sum of two values")?);
    if let Some(linear) = linear(graph, branch) {
        return Ok((linear, None));
    }
    let scale = graph.producer(branch).filter(|node| node.is("Mul"));
    scale
        .and_then(|node| graph.live_and_constant(node))
        .and_then(|(scaled, gamma)| Some((linear(graph, graph.before_reshapes(scaled))?, Some(gamma))))
        .ok_or_else(|| format!("expected a linear layer before the sum at node {:?}", addition.name))
}

/// The norm of `stream` whose output `linear_input` is.
fn norm_before<'a>(
    graph: &Graph<'a>,
    norms: &Norms<'a>,
    stream: &str,
    linear_input: &'a str,
) -> Result<Norm<'a>, String> {
    let norm = norms.writing(graph.before_reshapes(linear_input));
    norm.filter(|norm| norm.input == graph.root(stream))
        .copied()
        .ok_or_else(|| format!("expected a LayerNorm of the tokens before value {linear_input:?}"))
}

/// The linear layer that writes `value`.
fn linear<'a>(graph: &Graph<'a>, value: &'a str) -> Option<Linear<'a>> {
    let node = graph.producer(value)?;
    if !node.is("Add") {
        return product(graph, node);
    }
    let (sum, bias) = graph.live_and_constant(node)?;
    let product = product(graph, graph.producer(graph.before_reshapes(sum))?)?;
    let fits = constants::elements(bias) == Some(product.outputs()?);
    (fits && product.bias.is_none()).then_some(Linear { bias: Some(bias), ..product })
}

fn product<'a>(graph: &Graph<'a>, node: &'a NodeProto) -> Option<Linear<'a>> {
    let input = graph.root(node.input_at(0)?);
    if !graph.is_live(input) {
        return None;
    }
    let (weight, out_first) = graph.matrix(node.input_at(1)?)?;
    let product = node.output.first()?.as_str();
    if node.is("MatMul") {
        return Some(Linear { input, product, weight, out_first, bias: None });
    }
    let one =
        |name: &str| node.attribute(name).and_then(|attribute| attribute.f).is_none_or(|value| value == 1.0);
    if !node.is("Gemm") || node.int("transA").unwrap_or(0) != 0 || !one("alpha") || !one("beta") {
        return None;
    }
    let bias = match node.input_at(2) {
        Some(name) => Some(graph.constant(name)?),
        None => None,
    };
    let out_first = out_first != (node.int("transB").unwrap_or(0) != 0);
    Some(Linear { input, product, weight, out_first, bias })
}

impl Linear<'_> {
    /// Width of the result.
    fn outputs(&self) -> Option<usize> {
        constants::shape(self.weight).ok()?.get(usize::from(!self.out_first)).copied()
    }
}

/// Query, key and value, heads split, of the attention whose result is `value`.
fn attention_operands<'a>(graph: &Graph<'a>, value: &'a str) -> Result<[&'a str; 3], String> {
    let mixing = back_over_layout(graph, value);
    let missing = || format!("expected softmax attention before value {value:?}");
    let node = graph.producer(mixing).ok_or_else(missing)?;
    let inputs: Vec<&str> = graph.live_inputs(node).collect();
    if node.is("Attention") {
        return inputs.get(..3).and_then(|inputs| inputs.try_into().ok()).ok_or_else(missing);
    }
    let &[weights, value] = inputs.as_slice() else { return Err(missing()) };
    if !is_product(node) {
        return Err(missing());
    }
    let softmax = graph.producer(back_over_layout(graph, weights)).filter(|node| node.is("Softmax"));
    let mut scores = graph.root(softmax.and_then(|node| node.input_at(0)).ok_or_else(missing)?);
    while let Some(node) = graph.producer(scores)
        && ["Add", "Mul", "Div", "Sub", "Where"].iter().any(|op_type| node.is(op_type))
    {
        scores = graph.live_inputs(node).next().ok_or_else(missing)?;
    }
    let product = graph.producer(scores).filter(|node| is_product(node)).ok_or_else(missing)?;
    match graph.live_inputs(product).collect::<Vec<_>>().as_slice() {
        &[query, key] => Ok([query, key, value]),
        _ => Err(missing()),
    }
}

fn is_product(node: &NodeProto) -> bool {
    node.is("MatMul") || node.is("Einsum")
}

/// Walks back over operators that only move elements, and over the guard against NaN that torch writes after a
/// softmax.
fn back_over_layout<'a>(graph: &Graph<'a>, value: &'a str) -> &'a str {
    let mut value = graph.before_reshapes(value);
    while let Some(node) = graph.producer(value) {
        let next = if node.is("Transpose") {
            node.input_at(0).map(|input| graph.root(input))
        } else if node.is("Where") {
            graph.live_inputs(node).find(|input| !graph.producer(input).is_some_and(|node| node.is("IsNaN")))
        } else {
            None
        };
        let Some(next) = next else { break };
        value = graph.before_reshapes(next);
    }
    value
}

/// What lies between a value and the linear layers that it comes from.
struct Path<'a> {
    nodes: Vec<&'a NodeProto>,
    linears: Vec<Linear<'a>>,
}

impl<'a> Path<'a> {
    fn back_from(graph: &Graph<'a>, value: &'a str) -> Self {
        let mut path = Self { nodes: Vec::new(), linears: Vec::new() };
        let mut seen = HashSet::new();
        let mut waiting = vec![graph.root(value)];
        while let Some(value) = waiting.pop() {
            if !seen.insert(value) {
                continue;
            }
            if let Some(linear) = linear(graph, value) {
                path.linears.push(linear);
            } else if let Some(node) = graph.producer(value) {
                path.nodes.push(node);
                waiting.extend(graph.live_inputs(node));
            }
        }
        path
    }

    fn has(&self, op_type: &str) -> bool {
        self.nodes.iter().any(|node| node.is(op_type))
    }

    fn only_linear(&self, what: &str) -> Result<Linear<'a>, String> {
        match self.linears.as_slice() {
            &[linear] => Ok(linear),
            several => Err(format!("{what}: expected one linear layer, got {}", several.len())),
        }
    }

    /// Heads, from a Reshape that splits `dim` into `[.., heads, head_dim]`.
    fn heads(&self, graph: &Graph<'a>, dim: usize) -> Option<usize> {
        let split = |node: &&NodeProto| {
            let sides = graph.shape_values(node.input_at(1)?);
            let number =
                |side: Option<i64>| side.and_then(|side| usize::try_from(side).ok()).filter(|&side| side > 0);
            let &[.., heads, head_dim] = sides.as_slice() else { return None };
            let from_width =
                || number(head_dim).filter(|&width| dim.is_multiple_of(width)).map(|width| dim / width);
            (sides.len() >= 4)
                .then(|| number(heads).filter(|&heads| dim.is_multiple_of(heads)).or_else(from_width))?
        };
        self.nodes.iter().rev().filter(|node| node.is("Reshape")).find_map(split)
    }
}
