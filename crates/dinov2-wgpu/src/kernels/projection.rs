use wgpu::Buffer;

use super::{Access, FRAME, Shader, linear};
use crate::layout::Layout;
use crate::step::{Slice, Stage, Step};
use crate::{Gpu, GpuError};

const LANES: usize = 64;

/// A mean and directions on the device.
pub(crate) struct Basis {
    /// `[1 + components, stride]`, 0 beyond `dim`.
    buffer: Buffer,
    pub(crate) components: usize,
}

impl Basis {
    /// `mean: [dim]`, `directions: [components, dim]`.
    pub(crate) fn upload(
        gpu: &Gpu,
        layout: &Layout,
        mean: &[f32],
        directions: &[f32],
    ) -> Result<Self, GpuError> {
        let rows = std::iter::once(mean).chain(directions.chunks_exact(layout.dim));
        let padding = vec![0.0; layout.tokens - layout.dim];
        let values: Vec<f32> = rows.flat_map(|row| row.iter().chain(&padding).copied()).collect();
        let buffer = gpu.upload("basis", bytemuck::cast_slice(&values))?;
        Ok(Self { buffer, components: directions.len() / layout.dim })
    }
}

pub(crate) fn shader() -> Shader {
    Shader {
        name: "projection",
        parts: vec![FRAME, include_str!("projection.wgsl")],
        bindings: &[(0, Access::Uniform), (1, Access::Read), (2, Access::Read), (3, Access::ReadWrite)],
    }
}

/// `output: [patches, components]`, f32, from the final `tokens: [tokens, layout.tokens]`.
pub(crate) fn step(
    gpu: &Gpu,
    layout: &Layout,
    basis: &Basis,
    patches: usize,
    [frame, tokens, output]: [Slice<'_>; 3],
) -> Result<Step, GpuError> {
    let constants = [
        ("STRIDE4", (layout.tokens / 4) as f64),
        ("PREFIX", layout.prefix as f64),
        ("COMPONENTS", basis.components as f64),
    ];
    let buffers = [frame, tokens, (&basis.buffer).into(), output];
    let workgroups = linear((patches * basis.components).div_ceil(LANES));
    Step::new(gpu, Stage::Projected, &shader(), &constants, &buffers, workgroups)
}
