//! The DINOv2 vision transformer as an ONNX graph of standard operators (opset 17), batch 1.
//!
//! Values: `pixel_values [1, 3, height, width]` to `last_hidden_state [1, n, dim]`. In f16, linear layers, GELU and
//! the two products of attention are f16; the residual stream, LayerNorm, softmax and LayerScale stay f32, because
//! DINOv2's few huge activations leave the range of f16 when squared.

use dinov2_core::{Facet, MlpKind, PatchGrid, Tap, Taps, VitSpec};
use dinov2_weights::onnx::proto::{GraphProto, TensorProto, data_type};

use crate::graph_builder::{GraphBuilder, Side, float, int, ints};
use crate::weights::{OnnxWeights, little_endian};
use crate::{OnnxError, Precision};

/// Name of the pixel input.
pub const PIXELS_INPUT: &str = "pixel_values";
/// Name of the position input of a dynamic export.
pub const POSITIONS_INPUT: &str = "position_embedding";
/// Name of the output that holds the final normed tokens.
pub const TOKENS_OUTPUT: &str = "last_hidden_state";

/// The size that a graph is for.
pub(crate) enum GraphSize<'a> {
    /// One grid, with its position table, `[1 + rows * cols, dim]`.
    Static(PatchGrid, &'a [f32]),
    /// Any grid; the position table is an input.
    Dynamic,
}

/// Builds the graph. `taps` become outputs under their [`Tap`] names, facets and layers `[1, n, dim]`, the attention
/// of CLS `[1, heads, n]`.
///
/// # Errors
/// A tap that the model does not have.
pub(crate) fn vit_graph(
    weights: &OnnxWeights,
    size: &GraphSize<'_>,
    taps: &Taps,
) -> Result<GraphProto, OnnxError> {
    let spec = &weights.spec;
    taps.check(spec)?;
    let builder = GraphBuilder::new(&spec.name());
    let mut vit = Vit { spec, weights, taps, tokens: token_side(spec, size), builder, scale: None };
    let mut stream = vit.embedding(size)?;
    for layer in 0..spec.depth {
        stream = vit.block(layer, &stream)?;
    }
    vit.norm("norm", TOKENS_OUTPUT, &stream)?;
    let width = Side::Known(spec.dim);
    vit.builder.output(TOKENS_OUTPUT, &[Side::Known(1), vit.tokens, width]);
    for tap in taps.iter() {
        let sides = match tap {
            Tap::ClsAttention => [Side::Known(1), Side::Known(spec.heads), vit.tokens],
            _ => [Side::Known(1), vit.tokens, width],
        };
        vit.builder.output(&tap.to_string(), &sides);
    }
    Ok(vit.builder.finish())
}

fn token_side(spec: &VitSpec, size: &GraphSize<'_>) -> Side {
    match size {
        GraphSize::Static(grid, _) => Side::Known(spec.tokens(*grid)),
        GraphSize::Dynamic => Side::Named("tokens"),
    }
}

struct Vit<'a> {
    spec: &'a VitSpec,
    weights: &'a OnnxWeights,
    taps: &'a Taps,
    tokens: Side,
    builder: GraphBuilder,
    /// The constant `head_dim^-1/2`, once it is there.
    scale: Option<String>,
}

impl Vit<'_> {
    fn embedding(&mut self, size: &GraphSize<'_>) -> Result<String, OnnxError> {
        let (dim, patch) = (self.spec.dim, self.spec.patch_size as i64);
        let sides = match size {
            GraphSize::Static(grid, _) => {
                [grid.rows, grid.cols].map(|side| Side::Known(side * self.spec.patch_size))
            }
            GraphSize::Dynamic => [Side::Named("height"), Side::Named("width")],
        };
        self.builder.input(PIXELS_INPUT, &[Side::Known(1), Side::Known(3), sides[0], sides[1]]);
        let pixels = self.narrowed(PIXELS_INPUT);
        let weight = self.weight("patch_embed.proj.weight")?;
        let bias = self.weight("patch_embed.proj.bias")?;
        let attributes = vec![ints("kernel_shape", &[patch, patch]), ints("strides", &[patch, patch])];
        let planes = self.builder.node("Conv", "patch_embed.proj", &[&pixels, &weight, &bias], attributes);
        let rows = self.builder.reshape("patch_embed.rows", &planes, &[1, dim as i64, -1]);
        let patches = self.builder.transpose("patch_embed.patches", &rows, &[0, 2, 1]);
        let patches = self.widened(&patches);
        let class = self.weight("cls_token")?;
        let tokens = self.builder.node("Concat", "tokens.patches", &[&class, &patches], vec![int("axis", 1)]);
        let positions = self.positions(size);
        let tokens = self.builder.node("Add", "tokens.positions", &[&tokens, &positions], vec![]);
        self.with_registers(tokens)
    }

    fn positions(&mut self, size: &GraphSize<'_>) -> String {
        let dim = self.spec.dim;
        match size {
            GraphSize::Static(grid, table) => self.builder.constant(TensorProto {
                name: "pos_embed".into(),
                dims: vec![1, 1 + grid.len() as i64, dim as i64],
                data_type: data_type::FLOAT,
                raw_data: little_endian(table, data_type::FLOAT).into(),
                ..TensorProto::default()
            }),
            GraphSize::Dynamic => {
                let sides = [Side::Known(1), Side::Named("positions"), Side::Known(dim)];
                self.builder.input(POSITIONS_INPUT, &sides);
                POSITIONS_INPUT.into()
            }
        }
    }

    /// Registers join after the positions, between CLS and the patches.
    fn with_registers(&mut self, tokens: String) -> Result<String, OnnxError> {
        if self.spec.registers == 0 {
            return Ok(tokens);
        }
        let registers = self.weight("register_tokens")?;
        let [zero, one] = [0, 1].map(|place| self.builder.integers(&format!("place{place}"), &[place]));
        let end = self.builder.integers("place_end", &[i64::MAX]);
        let class = self.builder.node("Slice", "tokens.class", &[&tokens, &zero, &one, &one], vec![]);
        let patches = self.builder.node("Slice", "tokens.rest", &[&tokens, &one, &end, &one], vec![]);
        let parts = [class.as_str(), &registers, &patches];
        Ok(self.builder.node("Concat", "tokens.registers", &parts, vec![int("axis", 1)]))
    }

    fn block(&mut self, layer: usize, stream: &str) -> Result<String, OnnxError> {
        let name = |part: &str| format!("blocks.{layer}.{part}");
        let normed = self.norm(&name("norm1"), &name("norm1"), stream)?;
        let attended = self.attention(layer, &normed)?;
        let stream = self.residual(layer, 1, &attended, stream)?;
        let normed = self.norm(&name("norm2"), &name("norm2"), &stream)?;
        let expanded = self.mlp(layer, &normed)?;
        let stream = self.residual(layer, 2, &expanded, &stream)?;
        for norm in [false, true] {
            let tap = Tap::Layer { layer, norm };
            if !self.taps.as_slice().contains(&tap) {
                continue;
            }
            match norm {
                false => self.builder.node("Identity", &tap.to_string(), &[&stream], vec![]),
                true => self.norm("norm", &tap.to_string(), &stream)?,
            };
        }
        Ok(stream)
    }

    fn attention(&mut self, layer: usize, normed: &str) -> Result<String, OnnxError> {
        let name = |part: &str| format!("blocks.{layer}.attn.{part}");
        let (heads, width) = (self.spec.heads as i64, self.spec.head_dim() as i64);
        let qkv = self.linear(&name("qkv"), normed)?;
        let parts = ["query", "key", "value"].map(&name);
        let [query, key, value] = [&parts[0], &parts[1], &parts[2]].map(String::as_str);
        self.builder.split_node("Split", &[query, key, value], &[&qkv], vec![int("axis", -1)]);
        self.tap_facets(layer, [query, key, value]);
        let [query, key, value] =
            [(query, [0, 2, 1, 3]), (key, [0, 2, 3, 1]), (value, [0, 2, 1, 3])].map(|(part, order)| {
                let split = self.builder.reshape(&format!("{part}.split"), part, &[1, -1, heads, width]);
                self.builder.transpose(&format!("{part}.heads"), &split, &order)
            });
        let scale = self.scale();
        let query = self.builder.node("Mul", &name("query.scaled"), &[&query, &scale], vec![]);
        let scores = self.builder.node("MatMul", &name("scores"), &[&query, &key], vec![]);
        let scores = self.widened(&scores);
        let attention = self.builder.node("Softmax", &name("attention"), &[&scores], vec![int("axis", -1)]);
        if layer + 1 == self.spec.depth && self.taps.as_slice().contains(&Tap::ClsAttention) {
            self.tap_cls_attention(&attention);
        }
        let attention = self.narrowed(&attention);
        let mixed = self.builder.node("MatMul", &name("mixed"), &[&attention, &value], vec![]);
        let mixed = self.builder.transpose(&name("mixed.tokens"), &mixed, &[0, 2, 1, 3]);
        let merged = self.builder.reshape(&name("merged"), &mixed, &[1, -1, self.spec.dim as i64]);
        self.linear_of_compute(&name("proj"), &merged)
    }

    fn tap_facets(&mut self, layer: usize, parts: [&str; 3]) {
        for (facet, part) in [Facet::Query, Facet::Key, Facet::Value].into_iter().zip(parts) {
            let tap = Tap::Facet { layer, facet };
            if self.taps.as_slice().contains(&tap) {
                let part = self.widened(part);
                self.builder.node("Identity", &tap.to_string(), &[&part], vec![]);
            }
        }
    }

    /// `attention: [1, heads, n, n]`; the first row of each head.
    fn tap_cls_attention(&mut self, attention: &str) {
        let tap = Tap::ClsAttention.to_string();
        let bounds = [0, 1, 2].map(|place| self.builder.integers(&format!("{tap}.place{place}"), &[place]));
        let [start, end, axis] = bounds;
        let rows =
            self.builder.node("Slice", &format!("{tap}.rows"), &[attention, &start, &end, &axis], vec![]);
        self.builder.reshape(&tap, &rows, &[1, self.spec.heads as i64, -1]);
    }

    fn mlp(&mut self, layer: usize, normed: &str) -> Result<String, OnnxError> {
        let name = |part: &str| format!("blocks.{layer}.mlp.{part}");
        match self.spec.mlp {
            MlpKind::Gelu => {
                let hidden = self.linear(&name("fc1"), normed)?;
                let active = self.gelu(&name("gelu"), &hidden);
                self.linear_of_compute(&name("fc2"), &active)
            }
            MlpKind::SwiGlu => {
                let hidden = self.linear(&name("w12"), normed)?;
                let [gate, up] = [name("gate"), name("up")];
                self.builder.split_node("Split", &[&gate, &up], &[&hidden], vec![int("axis", -1)]);
                let sigmoid = self.builder.node("Sigmoid", &name("sigmoid"), &[&gate], vec![]);
                let silu = self.builder.node("Mul", &name("silu"), &[&gate, &sigmoid], vec![]);
                let active = self.builder.node("Mul", &name("gated"), &[&silu, &up], vec![]);
                self.linear_of_compute(&name("w3"), &active)
            }
        }
    }

    /// `x * (erf(x / sqrt 2) + 1) * 1/2`, in the order of torch's exporter, which runtimes recognise and fuse.
    fn gelu(&mut self, name: &str, hidden: &str) -> String {
        let [root, one, half] = [("root2", std::f32::consts::SQRT_2), ("one", 1.0), ("half", 0.5)]
            .map(|(part, value)| self.scalar(&format!("{name}.{part}"), value));
        let scaled = self.builder.node("Div", &format!("{name}.scaled"), &[hidden, &root], vec![]);
        let erf = self.builder.node("Erf", &format!("{name}.erf"), &[&scaled], vec![]);
        let shifted = self.builder.node("Add", &format!("{name}.shifted"), &[&erf, &one], vec![]);
        let product = self.builder.node("Mul", &format!("{name}.product"), &[hidden, &shifted], vec![]);
        self.builder.node("Mul", name, &[&product, &half], vec![])
    }

    /// `stream + gamma * branch`.
    fn residual(
        &mut self,
        layer: usize,
        index: usize,
        branch: &str,
        stream: &str,
    ) -> Result<String, OnnxError> {
        let mut branch = self.widened(branch);
        if self.spec.layer_scale {
            let name = format!("blocks.{layer}.ls{index}");
            let gamma = self.weight(&format!("{name}.gamma"))?;
            branch = self.builder.node("Mul", &name, &[&branch, &gamma], vec![]);
        }
        let output = format!("blocks.{layer}.sum{index}");
        Ok(self.builder.node("Add", &output, &[&branch, stream], vec![]))
    }

    fn norm(&mut self, name: &str, output: &str, stream: &str) -> Result<String, OnnxError> {
        let [weight, bias] = ["weight", "bias"].map(|field| self.weight(&format!("{name}.{field}")));
        let attributes = vec![int("axis", -1), float("epsilon", self.spec.norm_eps)];
        Ok(self.builder.node("LayerNormalization", output, &[stream, &weight?, &bias?], attributes))
    }

    /// A linear layer of an f32 value.
    fn linear(&mut self, name: &str, value: &str) -> Result<String, OnnxError> {
        let value = self.narrowed(value);
        self.linear_of_compute(name, &value)
    }

    /// A linear layer of a value in the precision of the export.
    fn linear_of_compute(&mut self, name: &str, value: &str) -> Result<String, OnnxError> {
        let weight = self.weight(&format!("{name}.weight"))?;
        let bias = self.weight(&format!("{name}.bias"))?;
        let product = self.builder.node("MatMul", &format!("{name}.product"), &[value, &weight], vec![]);
        Ok(self.builder.node("Add", name, &[&product, &bias], vec![]))
    }

    /// The name of a weight, which becomes a constant of the graph on first use.
    fn weight(&mut self, name: &str) -> Result<String, OnnxError> {
        if !self.builder.has_constant(name) {
            let tensor = self.weights.constant(name)?;
            self.builder.constant(tensor);
        }
        Ok(name.into())
    }

    fn scale(&mut self) -> String {
        if self.scale.is_none() {
            let value = (self.spec.head_dim() as f32).sqrt().recip();
            self.scale = Some(self.scalar("attn.scale", value));
        }
        self.scale.clone().unwrap_or_default()
    }

    /// A constant without dimensions, in the precision of the export.
    fn scalar(&mut self, name: &str, value: f32) -> String {
        let data_type = match self.weights.precision {
            Precision::F32 => data_type::FLOAT,
            Precision::F16 => data_type::FLOAT16,
        };
        let raw_data = little_endian(&[value], data_type).into();
        self.builder.constant(TensorProto {
            name: name.into(),
            data_type,
            raw_data,
            ..TensorProto::default()
        })
    }

    /// An f32 value in the precision of the export.
    fn narrowed(&mut self, value: &str) -> String {
        self.cast(value, "f16", data_type::FLOAT16)
    }

    /// A value in the precision of the export as f32.
    fn widened(&mut self, value: &str) -> String {
        self.cast(value, "f32", data_type::FLOAT)
    }

    fn cast(&mut self, value: &str, suffix: &str, data_type: i32) -> String {
        match self.weights.precision {
            Precision::F32 => value.into(),
            Precision::F16 => {
                let output = format!("{value}.{suffix}");
                self.builder.node("Cast", &output, &[value], vec![int("to", data_type.into())])
            }
        }
    }
}
