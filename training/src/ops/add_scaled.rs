//! `input + branch * factor`, fused.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::rows::{TASK_ROWS, map_rows_with_sums, numbers, tensor, with_numbers};

/// `add_scaled`.
pub(super) struct AddScaled;

impl CustomOp3 for AddScaled {
    fn name(&self) -> &'static str {
        "add_scaled"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        branch: &CpuStorage,
        branch_layout: &Layout,
        factor: &CpuStorage,
        factor_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, dim) = input_layout.shape().dims2()?;
        let (input, branch) = (numbers(input, input_layout)?, numbers(branch, branch_layout)?);
        let factor = numbers(factor, factor_layout)?;
        if input.len() != branch.len() || factor.len() != dim {
            bail!("add_scaled: expected a branch {:?} and a factor [{dim}]", input_layout.dims());
        }
        let mut out = input.to_vec();
        let tasks = out.par_chunks_mut(TASK_ROWS * dim).zip(branch.par_chunks(TASK_ROWS * dim));
        tasks.for_each(|(out, branch)| {
            for (out, branch) in out.chunks_exact_mut(dim).zip(branch.chunks_exact(dim)) {
                for ((out, branch), factor) in out.iter_mut().zip(branch).zip(factor) {
                    *out += branch * factor;
                }
            }
        });
        Ok((CpuStorage::F32(out), input_layout.shape().clone()))
    }

    fn bwd(
        &self,
        _input: &Tensor,
        branch: &Tensor,
        factor: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dim = factor.elem_count();
        let (to_branch, sums) = with_numbers(grad, |grad| {
            with_numbers(branch, |branch| with_numbers(factor, |factor| Ok(gradients(grad, branch, factor))))
        })?;
        Ok((Some(grad.clone()), Some(tensor(to_branch, branch.shape())?), Some(tensor(sums, dim)?)))
    }
}

/// The gradients of branch and factor.
fn gradients(grad: &[f32], branch: &[f32], factor: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let dim = factor.len();
    let mut to_branch = vec![0.0; branch.len()];
    let sums = map_rows_with_sums(&mut to_branch, dim, dim, |first, rows| {
        let mut sums = vec![0.0; dim];
        for (at, out) in rows.chunks_exact_mut(dim).enumerate() {
            let place = (first + at) * dim..(first + at + 1) * dim;
            let (grad, branch) = (&grad[place.clone()], &branch[place]);
            for at in 0..dim {
                out[at] = grad[at] * factor[at];
                sums[at] += grad[at] * branch[at];
            }
        }
        sums
    });
    (to_branch, sums)
}
