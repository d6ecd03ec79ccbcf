//! One dispatch of a kernel, ready to be encoded frame after frame.

use std::sync::Arc;

use wgpu::{BindGroup, BindingResource, Buffer, BufferBinding, BufferSize, ComputePass};

use crate::kernels::{Constant, Shader};
use crate::pipelines::Pipeline;
use crate::{Gpu, GpuError};

/// Part of a frame's work that is timed separately. All of its dispatches run the same kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Pixels to rows.
    PatchRows,
    /// Rows of pixels to patch tokens.
    PatchEmbed,
    /// All LayerNorms, rounding to int8 included where it follows.
    LayerNorm,
    /// The fused projections to queries, keys and values.
    Qkv,
    /// Scores, softmax and weighted values.
    Attention,
    /// Rounding of activations to int8 where no LayerNorm precedes.
    Quantize,
    /// The projections after attention.
    Projection,
    /// First matrices of the MLPs, activation included.
    MlpIn,
    /// Second matrices of the MLPs.
    MlpOut,
    /// Copies of what taps ask for.
    Taps,
}

impl Stage {
    /// Every stage, in the order of a frame.
    pub const ALL: [Stage; 10] = [
        Stage::PatchRows,
        Stage::PatchEmbed,
        Stage::LayerNorm,
        Stage::Qkv,
        Stage::Attention,
        Stage::Quantize,
        Stage::Projection,
        Stage::MlpIn,
        Stage::MlpOut,
        Stage::Taps,
    ];

    /// `patch_rows`, `patch_embed`, …
    pub fn name(self) -> &'static str {
        match self {
            Stage::PatchRows => "patch_rows",
            Stage::PatchEmbed => "patch_embed",
            Stage::LayerNorm => "layer_norm",
            Stage::Qkv => "qkv",
            Stage::Attention => "attention",
            Stage::Quantize => "quantize",
            Stage::Projection => "projection",
            Stage::MlpIn => "mlp_in",
            Stage::MlpOut => "mlp_out",
            Stage::Taps => "taps",
        }
    }
}

/// A compiled kernel with its buffers and its workgroups.
pub(crate) struct Step {
    pub(crate) stage: Stage,
    pipeline: Arc<Pipeline>,
    bind_group: BindGroup,
    workgroups: [u32; 3],
}

/// A buffer, or a part of one.
#[derive(Clone, Copy)]
pub(crate) struct Slice<'a> {
    pub(crate) buffer: &'a Buffer,
    pub(crate) offset: u64,
    /// `None` for the rest of the buffer.
    pub(crate) bytes: Option<u64>,
}

impl<'a> From<&'a Buffer> for Slice<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Self { buffer, offset: 0, bytes: None }
    }
}

impl<'a> Slice<'a> {
    pub(crate) fn resource(self) -> BindingResource<'a> {
        let size = self.bytes.and_then(BufferSize::new);
        BindingResource::Buffer(BufferBinding { buffer: self.buffer, offset: self.offset, size })
    }
}

impl Step {
    /// `buffers` in the order of the shader's bindings.
    pub(crate) fn new(
        gpu: &Gpu,
        stage: Stage,
        shader: &Shader,
        constants: &[Constant],
        buffers: &[Slice<'_>],
        workgroups: [u32; 3],
    ) -> Result<Self, GpuError> {
        let most = gpu.device().limits().max_compute_workgroups_per_dimension;
        if let Some(&count) = workgroups.iter().find(|&&count| count > most) {
            return Err(GpuError::Unsupported {
                what: "workgroups of a kernel",
                most: most as usize,
                got: count as usize,
            });
        }
        let pipeline = gpu.pipeline(shader, constants)?;
        let bind_group = pipeline.bind(gpu.device(), buffers);
        gpu.check()?;
        Ok(Self { stage, pipeline, bind_group, workgroups })
    }

    pub(crate) fn encode(&self, pass: &mut ComputePass<'_>) {
        let [x, y, z] = self.workgroups;
        pass.set_pipeline(&self.pipeline.compiled);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}
