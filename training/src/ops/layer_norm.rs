//! LayerNorm over rows, fused.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::rows::{TASK_ROWS, map_rows_with_sums, numbers, tensor, with_numbers};

/// `layer_norm`; statistics are recomputed in the backward pass instead of being stored.
pub(super) struct LayerNorm {
    pub(super) eps: f32,
}

impl LayerNorm {
    /// Mean and inverse standard deviation of a row.
    fn statistics(&self, row: &[f32]) -> (f32, f32) {
        let count = row.len() as f32;
        let mean = row.iter().sum::<f32>() / count;
        let variance = row.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>() / count;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, dim) = input_layout.shape().dims2()?;
        let (scale, shift) = (numbers(scale, scale_layout)?, numbers(shift, shift_layout)?);
        if scale.len() != dim || shift.len() != dim {
            bail!(
                "layer_norm: expected scale and shift [{dim}], got [{}] and [{}]",
                scale.len(),
                shift.len()
            );
        }
        let input = numbers(input, input_layout)?;
        let mut out = vec![0.0; input.len()];
        let tasks = out.par_chunks_mut(TASK_ROWS * dim).zip(input.par_chunks(TASK_ROWS * dim));
        tasks.for_each(|(out, input)| {
            for (out, input) in out.chunks_exact_mut(dim).zip(input.chunks_exact(dim)) {
                let (mean, inverse) = self.statistics(input);
                for (((out, value), scale), shift) in out.iter_mut().zip(input).zip(scale).zip(shift) {
                    *out = (value - mean) * inverse * scale + shift;
                }
            }
        });
        Ok((CpuStorage::F32(out), input_layout.shape().clone()))
    }

    /// With `x̂` the normalised row and `d = grad · scale`: `dx = (d - mean(d) - x̂ · mean(d · x̂)) / σ`.
    fn bwd(
        &self,
        input: &Tensor,
        scale: &Tensor,
        _shift: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dim = input.dim(1)?;
        let (to_input, sums) = with_numbers(grad, |grad| {
            with_numbers(input, |input| with_numbers(scale, |scale| Ok(self.gradients(grad, input, scale))))
        })?;
        let (scale_sums, shift_sums) = sums.split_at(dim);
        Ok((
            Some(tensor(to_input, input.shape())?),
            Some(tensor(scale_sums.to_vec(), dim)?),
            Some(tensor(shift_sums.to_vec(), dim)?),
        ))
    }
}

impl LayerNorm {
    /// The gradient of the input, and those of scale and shift behind each other.
    fn gradients(&self, grad: &[f32], input: &[f32], scale: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let dim = scale.len();
        let mut to_input = vec![0.0; input.len()];
        let sums = map_rows_with_sums(&mut to_input, dim, 2 * dim, |first, rows| {
            let mut sums = vec![0.0; 2 * dim];
            for (at, out) in rows.chunks_exact_mut(dim).enumerate() {
                let place = (first + at) * dim..(first + at + 1) * dim;
                self.row_gradients(&grad[place.clone()], &input[place], scale, out, &mut sums);
            }
            sums
        });
        (to_input, sums)
    }

    fn row_gradients(&self, grad: &[f32], input: &[f32], scale: &[f32], out: &mut [f32], sums: &mut [f32]) {
        let dim = scale.len();
        let (mean, inverse) = self.statistics(input);
        let (scale_sums, shift_sums) = sums.split_at_mut(dim);
        let (mut along_one, mut along_normal) = (0.0, 0.0);
        for at in 0..dim {
            let normal = (input[at] - mean) * inverse;
            scale_sums[at] += grad[at] * normal;
            shift_sums[at] += grad[at];
            let scaled = grad[at] * scale[at];
            along_one += scaled;
            along_normal += scaled * normal;
        }
        let (along_one, along_normal) = (along_one / dim as f32, along_normal / dim as f32);
        for at in 0..dim {
            let normal = (input[at] - mean) * inverse;
            out[at] = (grad[at] * scale[at] - along_one - normal * along_normal) * inverse;
        }
    }
}
