//! `layer_norm_quantized.wgsl`: LayerNorm and quantization to 8 bits in one pass over a row.

use wgpu::Buffer;

use super::layer_norm::Norm;
use super::quantize::Quantized;
use super::{Access, FRAME, NORM, QUANTIZED, ROW, Shader, linear};
use crate::step::{Stage, Step};
use crate::{Gpu, GpuError};

pub(crate) fn shader() -> Shader {
    Shader {
        name: "layer_norm_quantized",
        parts: vec![FRAME, ROW, NORM, QUANTIZED, include_str!("layer_norm_quantized.wgsl")],
        bindings: &[
            (0, Access::Uniform),
            (1, Access::Read),
            (2, Access::Read),
            (3, Access::ReadWrite),
            (4, Access::ReadWrite),
        ],
    }
}

/// `output = quantize(layer_norm(input))`, `input: [tokens, stride]`, f32.
pub(crate) fn step(
    gpu: &Gpu,
    norm: &Norm,
    tokens: usize,
    frame: &Buffer,
    input: &Buffer,
    output: &Quantized,
) -> Result<Step, GpuError> {
    let buffers = [frame, input, &norm.buffer, &output.values, &output.row_terms].map(Into::into);
    Step::new(gpu, Stage::LayerNorm, &shader(), &norm.constants(), &buffers, linear(tokens))
}

#[cfg(test)]
mod tests {
    use super::super::layer_norm::tests::{EPS, expected, parameters};
    use super::super::quantize::tests::{check_rows, room};
    use super::*;
    use crate::kernels::Real;
    use crate::test_util::{buffer, frame, gpu, numbers, padded};

    /// Of a step: the normed values are f32, good to some 1e-6 of the range of 255 steps.
    const SLACK: f64 = 2e-3;

    #[test]
    fn rows_are_normed_and_quantized() {
        let Some(gpu) = gpu() else { return };
        for dim in [5usize, 45, 384, 1536] {
            let (tokens, stride) = (3, dim.next_multiple_of(32));
            let input = numbers(1, tokens * dim);
            let [gamma, beta] = parameters(dim);
            let norm = Norm::upload(gpu, &gamma, &beta, stride, EPS).expect("room for a norm");
            let source = buffer(gpu, Real::F32, &padded(&input, dim, stride));
            let output = room(gpu, tokens, stride);
            let step = step(gpu, &norm, tokens, &frame(gpu, tokens), &source, &output).expect("a kernel");
            crate::test_util::run(gpu, &[step]);
            check_rows(gpu, &format!("dim {dim}"), &output, (&expected(&input, dim), dim), SLACK);
        }
    }
}
