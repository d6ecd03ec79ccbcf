//! DINOv2's vision transformer on candle, differentiable, with the tensor names of the model file.
//!
//! Data shape: pixels `[batch, height, width, 3]` u8 become rows of patches `[batch * patches, 3 * patch * patch]`; tokens of the
//! whole batch are rows `[batch * n, dim]`, of every image CLS, registers, patches. Held to the runtime's engine by tests.

mod images;
mod parameters;
mod positions;
mod recompute;

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use dinov2_core::{MlpKind, PatchGrid, VitSpec};

use crate::ops::{self, AttentionShape};

pub use images::Images;
pub use parameters::{ParameterError, Parameters, Variables, read_parameters};
pub use positions::Positions;
pub use recompute::Recomputation;

/// A vision transformer: its shape and its tensors.
#[derive(Clone, Debug)]
pub struct Vit {
    spec: VitSpec,
    parameters: Parameters,
    positions: Arc<Positions>,
    rounds_inputs: bool,
}

/// Additional inputs and outputs of a forward pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Blocks, ascending, whose outputs are returned, before the last LayerNorm.
    pub taps: &'a [usize],
    /// `[batch * patches, 1]` of 0 and 1: 1 where the mask token replaces the patch.
    pub mask: Option<&'a Tensor>,
}

/// Tokens of a batch.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `[batch, n, dim]`, after the last LayerNorm.
    pub normed: Tensor,
    /// Outputs of the requested blocks, `[batch, n, dim]` each.
    pub taps: Vec<Tensor>,
    /// Number of tokens before the patches.
    pub prefix: usize,
    /// Grid of the patches.
    pub grid: PatchGrid,
}

impl Tokens {
    /// CLS, `[batch, dim]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn cls(&self) -> Result<Tensor> {
        self.normed.narrow(1, 0, 1)?.squeeze(1)
    }

    /// Patches, `[batch, patches, dim]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn patches(&self) -> Result<Tensor> {
        patches_of(&self.normed, self.prefix)
    }
}

/// The patches of `tokens: [batch, n, dim]`.
///
/// # Errors
/// Those of candle.
pub fn patches_of(tokens: &Tensor, prefix: usize) -> Result<Tensor> {
    tokens.narrow(1, prefix, tokens.dim(1)? - prefix)
}

impl Vit {
    /// A model of this shape with these tensors, as `layout::slots` names them.
    pub fn new(spec: VitSpec, parameters: Parameters) -> Self {
        Self { spec, parameters, positions: Arc::default(), rounds_inputs: false }
    }

    /// The same shape with other tensors.
    #[must_use]
    pub fn with_parameters(&self, parameters: Parameters) -> Self {
        Self { parameters, ..self.clone() }
    }

    /// The same with inputs of the blocks' matrices and of attention rounded as in the runtime's int8 engine.
    #[must_use]
    pub fn with_rounded_inputs(self) -> Self {
        Self { rounds_inputs: true, ..self }
    }

    /// Shape.
    pub fn spec(&self) -> &VitSpec {
        &self.spec
    }

    /// Tensors.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Tokens of images.
    ///
    /// # Errors
    /// Those of candle: no memory, a device that fails.
    pub fn forward(&self, images: &Images, request: Request<'_>) -> Result<Tokens> {
        let shape = self.attention_shape(images);
        let mut hidden = self.embed(images, request.mask)?;
        let mut taps = Vec::new();
        for index in 0..self.spec.depth {
            hidden = self.block(index, &hidden, shape)?;
            if request.taps.contains(&index) {
                taps.push(by_image(&hidden, shape)?);
            }
        }
        self.tokens(&hidden, taps, images)
    }

    fn attention_shape(&self, images: &Images) -> AttentionShape {
        AttentionShape {
            batch: images.batch(),
            tokens: self.spec.tokens(images.grid()),
            heads: self.spec.heads,
            head_dim: self.spec.head_dim(),
        }
    }

    fn tokens(&self, hidden: &Tensor, taps: Vec<Tensor>, images: &Images) -> Result<Tokens> {
        let normed = by_image(&self.norm("norm", hidden)?, self.attention_shape(images))?;
        Ok(Tokens { normed, taps, prefix: self.spec.prefix_tokens(), grid: images.grid() })
    }

    /// Patch embedding, mask, positions, CLS and registers. Returns `[batch * n, dim]`.
    fn embed(&self, images: &Images, mask: Option<&Tensor>) -> Result<Tensor> {
        let (batch, dim) = (images.batch(), self.spec.dim);
        let weight = self.get("patch_embed.proj.weight")?;
        let rows = images.rows().to_dtype(weight.dtype())?;
        let weight = weight.reshape((dim, rows.dim(1)?))?;
        let mut patches = ops::linear(&rows, &weight, self.get("patch_embed.proj.bias")?)?;
        if let Some(mask) = mask {
            let mask = mask.to_dtype(patches.dtype())?;
            let keep = mask.affine(-1.0, 1.0)?;
            let token = mask.matmul(&self.get("mask_token")?.reshape((1, dim))?)?;
            patches = (patches.broadcast_mul(&keep)? + token)?;
        }
        let positions = self.positions.table(&self.spec, self.get("pos_embed")?, images.grid())?;
        let patches = patches.reshape((batch, images.grid().len(), dim))?;
        let patches = patches.broadcast_add(&positions.narrow(1, 1, images.grid().len())?)?;
        let cls = (self.get("cls_token")? + positions.narrow(1, 0, 1)?)?;
        let mut parts = vec![cls.broadcast_as((batch, 1, dim))?];
        if self.spec.registers > 0 {
            let registers = self.get("register_tokens")?;
            parts.push(registers.broadcast_as((batch, self.spec.registers, dim))?);
        }
        parts.push(patches);
        Tensor::cat(&parts, 1)?.reshape((batch * self.spec.tokens(images.grid()), dim))
    }

    /// One block. `hidden: [batch * n, dim]`.
    fn block(&self, index: usize, hidden: &Tensor, shape: AttentionShape) -> Result<Tensor> {
        let name = |part: &str| format!("blocks.{index}.{part}");
        let normed = self.norm(&name("norm1"), hidden)?;
        let mut qkv = self.linear(&name("attn.qkv"), &normed)?;
        if self.rounds_inputs {
            qkv = ops::fake_quantize_attention(&qkv, shape)?;
        }
        let mixed = ops::attention(&qkv, shape)?;
        let branch = self.linear(&name("attn.proj"), &mixed)?;
        let hidden = self.residual(hidden, &branch, &name("ls1.gamma"))?;
        let normed = self.norm(&name("norm2"), &hidden)?;
        let branch = match self.spec.mlp {
            MlpKind::Gelu => {
                let inner = ops::gelu(&self.linear(&name("mlp.fc1"), &normed)?)?;
                self.linear(&name("mlp.fc2"), &inner)?
            }
            MlpKind::SwiGlu => {
                let inner = self.linear(&name("mlp.w12"), &normed)?;
                let width = self.spec.mlp_hidden;
                let gate = inner.narrow(1, 0, width)?.contiguous()?.silu()?;
                let inner = (gate * inner.narrow(1, width, width)?.contiguous()?)?;
                self.linear(&name("mlp.w3"), &inner)?
            }
        };
        self.residual(&hidden, &branch, &name("ls2.gamma"))
    }

    fn residual(&self, hidden: &Tensor, branch: &Tensor, factor: &str) -> Result<Tensor> {
        if self.spec.layer_scale {
            ops::add_scaled(hidden, branch, self.get(factor)?)
        } else {
            hidden + branch
        }
    }

    fn norm(&self, name: &str, hidden: &Tensor) -> Result<Tensor> {
        let (scale, shift) = (self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?);
        ops::layer_norm(hidden, scale, shift, self.spec.norm_eps)
    }

    /// A matrix of a block.
    fn linear(&self, name: &str, input: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?);
        if self.rounds_inputs {
            ops::linear(&ops::fake_quantize_rows(input)?, weight, bias)
        } else {
            ops::linear(input, weight, bias)
        }
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.parameters.get(name)
    }

    /// Number type of the arithmetic.
    pub fn dtype(&self) -> DType {
        self.parameters.dtype()
    }
}

/// `[batch * n, dim]` as `[batch, n, dim]`.
fn by_image(hidden: &Tensor, shape: AttentionShape) -> Result<Tensor> {
    hidden.reshape((shape.batch, shape.tokens, ()))
}
