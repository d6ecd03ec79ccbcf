use wgpu::Buffer;

use super::{Access, FRAME, QUANTISED, ROW, Real, Shader, linear};
use crate::step::{Stage, Step};
use crate::{Gpu, GpuError};

/// Rows in 8 bits.
pub(crate) struct Quantised {
    /// `[rows, columns]`, i8: q - 128. Columns vary from use to use.
    pub(crate) values: Buffer,
    /// `[rows, 2]`, f32: scale, zero - 128.
    pub(crate) row_terms: Buffer,
}

pub(crate) fn shader(real: Real) -> Shader {
    Shader {
        name: "quantise",
        parts: vec![real.part(), FRAME, ROW, QUANTISED, include_str!("quantise.wgsl")],
        bindings: &[(0, Access::Uniform), (1, Access::Read), (3, Access::ReadWrite), (4, Access::ReadWrite)],
    }
}

/// Quantises every row of `input: [tokens, columns]`.
pub(crate) fn step(
    gpu: &Gpu,
    real: Real,
    tokens: usize,
    columns: usize,
    frame: &Buffer,
    input: &Buffer,
    output: &Quantised,
) -> Result<Step, GpuError> {
    let constants = [("IN4", (columns / 4) as f64)];
    let buffers = [frame, input, &output.values, &output.row_terms].map(Into::into);
    Step::new(gpu, Stage::Quantise, &shader(real), &constants, &buffers, linear(tokens))
}
