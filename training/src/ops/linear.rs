//! A linear layer, fused with its bias.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::rows::{TASK_ROWS, column_sums, tensor, with_numbers};

/// `linear` in one pass over its result after the product.
pub(super) struct Linear;

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, k) = input_layout.shape().dims2()?;
        let (n, weight_k) = weight_layout.shape().dims2()?;
        if weight_k != k || bias_layout.dims() != [n] {
            bail!(
                "linear: expected weight [n, {k}] and bias [n], got {:?} and {:?}",
                weight_layout.dims(),
                bias_layout.dims()
            );
        }
        let mut out = input.matmul(weight, (1, rows, n, k), input_layout, &weight_layout.transpose(0, 1)?)?;
        let bias = super::rows::numbers(bias, bias_layout)?;
        if let CpuStorage::F32(out) = &mut out {
            out.par_chunks_mut(TASK_ROWS * n).for_each(|rows| {
                for row in rows.chunks_exact_mut(n) {
                    row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
                }
            });
        }
        Ok((out, (rows, n).into()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let n = grad.dim(1)?;
        let bias = with_numbers(&grad, |numbers| tensor(column_sums(numbers, n), n))?;
        // The first layer's input is data and needs no gradient.
        let to_input = if input.track_op() { Some(grad.matmul(&weight.detach())?) } else { None };
        Ok((to_input, Some(grad.t()?.matmul(&input.detach())?), Some(bias)))
    }
}
