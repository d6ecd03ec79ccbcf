//! From a model file to buffers on the device.

use dinov2_core::MlpKind;
use dinov2_weights::{Model, PixelFilters};

use crate::kernels::Real;
use crate::kernels::layer_norm::Norm;
use crate::kernels::product::Activation;
use crate::layout::Layout;
use crate::matrix::{Layer, Matrix};
use crate::{Gpu, GpuError};

/// One transformer block.
pub(crate) struct Block {
    pub(crate) norm1: Norm,
    pub(crate) qkv: Matrix,
    pub(crate) projection: Matrix,
    pub(crate) norm2: Norm,
    /// `fc1`, or the gated `w12`.
    pub(crate) mlp_in: Matrix,
    /// `fc2` or `w3`.
    pub(crate) mlp_out: Matrix,
}

/// Every weight.
pub(crate) struct Weights {
    pub(crate) patch_embed: Matrix,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: Norm,
    /// CLS, `[dim]`, without its position.
    pub(crate) cls: Vec<f32>,
    /// `[registers, dim]`.
    pub(crate) registers: Vec<f32>,
    /// As stored: `[1 + rows * cols, dim]`.
    pub(crate) position_table: Vec<f32>,
}

/// Number types that an engine computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Activations between kernels, and weights that are floats.
    pub(crate) real: Real,
    /// Whether the blocks' matrices are integer products.
    pub(crate) int8: bool,
}

impl Weights {
    pub(crate) fn upload(
        gpu: &Gpu,
        model: &Model,
        layout: &Layout,
        numbers: Numbers,
    ) -> Result<Self, GpuError> {
        let spec = model.spec();
        let loader = Loader { gpu, model, layout, numbers };
        let PixelFilters { weight, bias } = model.pixel_filters()?;
        Ok(Self {
            // A fiftieth of a frame's work, in f32 as in every engine: pixels are the one input that is not normalised.
            patch_embed: Layer::of_floats(weight, bias).upload(gpu, "patch_embed", Real::F32, false)?,
            blocks: (0..spec.depth).map(|index| loader.block(index)).collect::<Result<_, _>>()?,
            norm: loader.norm("norm")?,
            cls: model.f32("cls_token")?,
            registers: if spec.registers > 0 { model.f32("register_tokens")? } else { Vec::new() },
            position_table: model.f32("pos_embed")?,
        })
    }

    /// Tokens before the first block and before the patches' pixels are added, `[rows, layout.tokens]`.
    /// `positions: [1 + patches, dim]`.
    pub(crate) fn initial_tokens(&self, layout: &Layout, positions: &[f32], rows: usize) -> Vec<f32> {
        let dim = layout.dim;
        let mut tokens = vec![0.0; rows * layout.tokens];
        let mut lines = tokens.chunks_exact_mut(layout.tokens);
        let (cls_position, patch_positions) = positions.split_at(dim);
        if let Some(line) = lines.next() {
            let cls = self.cls.iter().zip(cls_position).map(|(token, position)| token + position);
            line.iter_mut().zip(cls).for_each(|(slot, value)| *slot = value);
        }
        let rest = self.registers.chunks_exact(dim).chain(patch_positions.chunks_exact(dim));
        lines.zip(rest).for_each(|(line, token)| line[..dim].copy_from_slice(token));
        tokens
    }
}

/// The activation inside the MLP.
pub(crate) fn mlp_activation(mlp: MlpKind) -> Activation {
    match mlp {
        MlpKind::Gelu => Activation::Gelu,
        MlpKind::SwiGlu => Activation::SwiGlu,
    }
}

#[derive(Clone, Copy)]
struct Loader<'a> {
    gpu: &'a Gpu,
    model: &'a Model,
    layout: &'a Layout,
    numbers: Numbers,
}

impl Loader<'_> {
    fn norm(self, name: &str) -> Result<Norm, GpuError> {
        let gamma = self.model.f32(&format!("{name}.weight"))?;
        let beta = self.model.f32(&format!("{name}.bias"))?;
        Norm::upload(self.gpu, &gamma, &beta, self.layout.tokens, self.model.spec().norm_eps)
    }

    fn block(self, index: usize) -> Result<Block, GpuError> {
        let Self { gpu, model, layout, numbers } = self;
        let spec = model.spec();
        let name = |part: &str| format!("blocks.{index}.{part}");
        let read = |part: &str| Layer::read(model, &name(part), numbers.int8);
        let scaled = |part: &str, scale: &str| -> Result<Layer, GpuError> {
            let layer = read(part)?;
            Ok(if spec.layer_scale { layer.scaled(model.f32(&name(scale))?) } else { layer })
        };
        let upload = |layer: Layer, part: &str| layer.upload(gpu, &name(part), numbers.real, numbers.int8);
        let (mlp_in, mlp_out) = match spec.mlp {
            MlpKind::Gelu => (read("mlp.fc1")?, scaled("mlp.fc2", "ls2.gamma")?),
            MlpKind::SwiGlu => (read("mlp.w12")?.gated(), scaled("mlp.w3", "ls2.gamma")?),
        };
        let projection = scaled("attn.proj", "ls1.gamma")?.with_columns(layout.head_columns(1));
        let block = Block {
            norm1: self.norm(&name("norm1"))?,
            qkv: upload(read("attn.qkv")?.with_channels(layout.head_columns(3)), "attn.qkv")?,
            projection: upload(projection, "attn.proj")?,
            norm2: self.norm(&name("norm2"))?,
            mlp_in: upload(mlp_in, "mlp_in")?,
            mlp_out: upload(mlp_out, "mlp_out")?,
        };
        gpu.finish_uploads().map(|()| block)
    }
}
