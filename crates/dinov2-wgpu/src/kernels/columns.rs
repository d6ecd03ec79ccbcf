use super::{Access, FRAME, Real, Shader, linear};
use crate::step::{Slice, Stage, Step};
use crate::{Gpu, GpuError};

const LANES: usize = 64;

/// Which columns of a matrix are copied: runs of `head` columns, `head_pitch` apart, from column `first`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    /// Columns of the copy.
    pub(crate) width: usize,
    pub(crate) first: usize,
    pub(crate) head: usize,
    pub(crate) head_pitch: usize,
    /// Row stride of the matrix.
    pub(crate) stride: usize,
}

pub(crate) fn shader(real: Real) -> Shader {
    Shader {
        name: "columns",
        parts: vec![real.part(), FRAME, include_str!("columns.wgsl")],
        bindings: &[(0, Access::Uniform), (1, Access::Read), (2, Access::ReadWrite)],
    }
}

/// Copies columns of `input: [tokens, stride]`, `real`, to `output: [tokens, width]`, f32.
pub(crate) fn step(
    gpu: &Gpu,
    columns: Columns,
    real: Real,
    tokens: usize,
    buffers: [Slice<'_>; 3],
) -> Result<Step, GpuError> {
    let constants = [
        ("WIDTH", columns.width as f64),
        ("FIRST", columns.first as f64),
        ("HEAD", columns.head as f64),
        ("HEAD_PITCH", columns.head_pitch as f64),
        ("IN", columns.stride as f64),
    ];
    let workgroups = linear((tokens * columns.width).div_ceil(LANES));
    Step::new(gpu, Stage::Taps, &shader(real), &constants, &buffers, workgroups)
}
