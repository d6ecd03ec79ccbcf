//! GELU, fused.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::math::normal;
use super::rows::{numbers, tensor, with_numbers};

/// Numbers that one task works on.
const TASK_NUMBERS: usize = 1 << 14;

/// `gelu`.
pub(super) struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let input = numbers(input, layout)?;
        let mut out = vec![0.0; input.len()];
        out.par_chunks_mut(TASK_NUMBERS).zip(input.par_chunks(TASK_NUMBERS)).for_each(|(out, input)| {
            out.iter_mut().zip(input).for_each(|(out, &x)| *out = x * normal(x).0);
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    /// `Φ(x) + x φ(x)`.
    fn bwd(&self, input: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        with_numbers(grad, |grad| {
            with_numbers(input, |input| {
                let mut out = grad.to_vec();
                out.par_chunks_mut(TASK_NUMBERS).zip(input.par_chunks(TASK_NUMBERS)).for_each(
                    |(out, input)| {
                        for (out, &x) in out.iter_mut().zip(input) {
                            let (cumulative, density) = normal(x);
                            *out *= cumulative + x * density;
                        }
                    },
                );
                tensor(out, grad_shape(grad.len()))
            })
        })?
        .reshape(input.shape())
        .map(Some)
    }
}

fn grad_shape(numbers: usize) -> Shape {
    Shape::from(numbers)
}
