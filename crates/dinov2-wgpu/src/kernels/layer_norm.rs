use wgpu::Buffer;

use super::{Access, Constant, FRAME, NORM, ROW, Real, Shader, linear};
use crate::step::{Slice, Stage, Step};
use crate::{Gpu, GpuError};

/// γ and β on the device, `[2, stride]`, 0 beyond `dim`.
pub(crate) struct Norm {
    pub(crate) buffer: Buffer,
    pub(crate) dim: usize,
    /// Row stride of the matrices that it takes and makes.
    pub(crate) stride: usize,
    pub(crate) eps: f32,
}

impl Norm {
    pub(crate) fn upload(
        gpu: &Gpu,
        gamma: &[f32],
        beta: &[f32],
        stride: usize,
        eps: f32,
    ) -> Result<Self, GpuError> {
        let mut values = vec![0.0f32; 2 * stride];
        values[..gamma.len()].copy_from_slice(gamma);
        values[stride..][..beta.len()].copy_from_slice(beta);
        let buffer = gpu.upload("norm", bytemuck::cast_slice(&values))?;
        Ok(Self { buffer, dim: gamma.len(), stride, eps })
    }

    pub(super) fn constants(&self) -> [Constant; 3] {
        [("DIM", self.dim as f64), ("IN4", (self.stride / 4) as f64), ("EPS", f64::from(self.eps))]
    }
}

pub(crate) fn shader(real: Real) -> Shader {
    Shader {
        name: "layer_norm",
        parts: vec![real.part(), FRAME, ROW, NORM, include_str!("layer_norm.wgsl")],
        bindings: &[(0, Access::Uniform), (1, Access::Read), (2, Access::Read), (3, Access::ReadWrite)],
    }
}

/// `output = layer_norm(input)`, both `[tokens, stride]`; input f32, output `real`.
pub(crate) fn step(
    gpu: &Gpu,
    stage: Stage,
    norm: &Norm,
    real: Real,
    tokens: usize,
    [frame, input, output]: [Slice<'_>; 3],
) -> Result<Step, GpuError> {
    let buffers = [frame, input, (&norm.buffer).into(), output];
    Step::new(gpu, stage, &shader(real), &norm.constants(), &buffers, linear(tokens))
}
