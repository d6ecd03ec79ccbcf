//! `layer_norm.wgsl`: LayerNorm of every row of the residual stream, f32 in, `real` out.

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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::test_util::{assert_close, buffer, cropped, frame, gpu, numbers, padded, read, reals};

    pub(in super::super) const EPS: f32 = 1e-6;

    /// γ and β of this width.
    pub(in super::super) fn parameters(dim: usize) -> [Vec<f32>; 2] {
        [numbers(11, dim), numbers(12, dim)]
    }

    /// The definition, `[rows, dim]`.
    pub(in super::super) fn expected(input: &[f32], dim: usize) -> Vec<f64> {
        let [gamma, beta] = parameters(dim);
        let of_row = |row: &[f32]| -> Vec<f64> {
            let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / dim as f64;
            let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / dim as f64;
            let factor = 1.0 / (variance + f64::from(EPS)).sqrt();
            let value =
                |at: usize| (f64::from(row[at]) - mean) * factor * f64::from(gamma[at]) + f64::from(beta[at]);
            (0..dim).map(value).collect()
        };
        input.chunks_exact(dim).flat_map(of_row).collect()
    }

    fn check(gpu: &Gpu, real: Real, dim: usize, input: &[f32], tolerance: f64) {
        let (tokens, stride) = (input.len() / dim, dim.next_multiple_of(32));
        let [gamma, beta] = parameters(dim);
        let norm = Norm::upload(gpu, &gamma, &beta, stride, EPS).expect("room for a norm");
        let source = buffer(gpu, Real::F32, &padded(input, dim, stride));
        // A row more than there are tokens must stay as it is.
        let output = buffer(gpu, real, &vec![7.0; (tokens + 1) * stride]);
        let frame = frame(gpu, tokens);
        let buffers = [&frame, &source, &output].map(Into::into);
        let step = step(gpu, Stage::LayerNorm, &norm, real, tokens, buffers).expect("a kernel");
        crate::test_util::run(gpu, &[step]);
        let got = read(gpu, real, &output, (tokens + 1) * stride);
        let (rows, behind) = got.split_at(tokens * stride);
        assert!(behind.iter().all(|&value| value == 7.0), "{dim}: a row beyond the tokens");
        assert!(
            rows.chunks(stride).all(|row| row[dim..].iter().all(|&value| value == 0.0)),
            "{dim}: padding"
        );
        let what = format!("{real:?}, {tokens} x {dim}");
        assert_close(&what, &cropped(rows, stride, dim), &expected(input, dim), tolerance);
    }

    #[test]
    fn rows_are_normed() {
        let Some(gpu) = gpu() else { return };
        for real in reals(gpu) {
            let tolerance = if real == Real::F32 { 1e-6 } else { 4e-4 };
            for dim in [1, 5, 45, 384, 1536] {
                check(gpu, real, dim, &numbers(1, 3 * dim), tolerance);
            }
        }
    }

    #[test]
    fn a_mean_far_above_the_deviation_is_taken_off_first() {
        let Some(gpu) = gpu() else { return };
        let input: Vec<f32> = numbers(2, 2 * 384).iter().map(|x| 1000.0 + x).collect();
        // A sum near 384,000 has steps of 2^-5: the mean is good to 1e-4 at best, at a deviation of 0.6.
        check(gpu, Real::F32, 384, &input, 1e-3);
    }

    #[test]
    fn rows_of_one_value_become_beta() {
        let Some(gpu) = gpu() else { return };
        check(gpu, Real::F32, 45, &[0.0; 45], 1e-6);
        check(gpu, Real::F32, 64, &[3.0; 64], 1e-6);
    }

    #[test]
    fn more_rows_than_workgroups_of_one_dimension() {
        let Some(gpu) = gpu() else { return };
        check(gpu, Real::F32, 5, &numbers(3, 32_770 * 5), 1e-6);
    }
}
