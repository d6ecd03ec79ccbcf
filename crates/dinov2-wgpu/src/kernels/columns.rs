//! `columns.wgsl`: copies columns of a padded matrix to a dense f32 matrix, for taps.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::{buffer, frame, gpu, numbers, read, reals, rounded};

    fn check(gpu: &Gpu, real: Real, columns: Columns, tokens: usize) {
        let Columns { width, first, head, head_pitch, stride } = columns;
        let values = rounded(real, &numbers(1, tokens * stride));
        let input = buffer(gpu, real, &values);
        let output = buffer(gpu, Real::F32, &vec![7.0; tokens * width + 1]);
        let frame = frame(gpu, tokens);
        let buffers = [&frame, &input, &output].map(Into::into);
        let step = step(gpu, columns, real, tokens, buffers).expect("a kernel");
        crate::test_util::run(gpu, &[step]);
        let of_row = |row: &[f32]| -> Vec<f32> {
            (0..width).map(|col| row[first + col / head * head_pitch + col % head]).collect()
        };
        let mut want: Vec<f32> = values.chunks_exact(stride).flat_map(of_row).collect();
        want.push(7.0);
        assert_eq!(read(gpu, Real::F32, &output, want.len()), want, "{real:?} {columns:?}");
    }

    #[test]
    fn padding_is_left_out() {
        let Some(gpu) = gpu() else { return };
        for real in reals(gpu) {
            // Keys of three heads of 15 columns in 16; tokens of 45 columns in 64.
            check(gpu, real, Columns { width: 45, first: 48, head: 15, head_pitch: 16, stride: 160 }, 17);
            check(gpu, real, Columns { width: 45, first: 0, head: 45, head_pitch: 45, stride: 64 }, 1);
        }
    }
}
