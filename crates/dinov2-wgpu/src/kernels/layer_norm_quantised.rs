use wgpu::Buffer;

use super::layer_norm::Norm;
use super::quantise::Quantised;
use super::{Access, FRAME, NORM, QUANTISED, ROW, Shader, linear};
use crate::step::{Stage, Step};
use crate::{Gpu, GpuError};

pub(crate) fn shader() -> Shader {
    Shader {
        name: "layer_norm_quantised",
        parts: vec![FRAME, ROW, NORM, QUANTISED, include_str!("layer_norm_quantised.wgsl")],
        bindings: &[
            (0, Access::Uniform),
            (1, Access::Read),
            (2, Access::Read),
            (3, Access::ReadWrite),
            (4, Access::ReadWrite),
        ],
    }
}

/// `output = quantise(layer_norm(input))`, `input: [tokens, stride]`, f32.
pub(crate) fn step(
    gpu: &Gpu,
    norm: &Norm,
    tokens: usize,
    frame: &Buffer,
    input: &Buffer,
    output: &Quantised,
) -> Result<Step, GpuError> {
    let buffers = [frame, input, &norm.buffer, &output.values, &output.row_terms].map(Into::into);
    Step::new(gpu, Stage::LayerNorm, &shader(), &norm.constants(), &buffers, linear(tokens))
}
