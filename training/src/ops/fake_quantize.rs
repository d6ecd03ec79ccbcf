//! The roundings of the int8 engine, fused: rows of inputs, and matrices with scales that learn.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::rows::{TASK_ROWS, numbers, tensor, with_numbers};

/// Lanes in which a row's extremes are searched.
const LANES: usize = 16;

/// `fake_quantize_rows`.
pub(super) struct FakeQuantizeRows;

impl CustomOp1 for FakeQuantizeRows {
    fn name(&self) -> &'static str {
        "fake_quantize_rows"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let input = numbers(input, layout)?;
        let (_, k) = layout.shape().dims2()?;
        let mut out = vec![0.0; input.len()];
        out.par_chunks_mut(TASK_ROWS * k).zip(input.par_chunks(TASK_ROWS * k)).for_each(|(out, input)| {
            for (out, row) in out.chunks_exact_mut(k).zip(input.chunks_exact(k)) {
                quantize_row(row, out);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _input: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}

/// Quantizes a row as `dinov2_kernels::quantize` does, and back.
fn quantize_row(row: &[f32], out: &mut [f32]) {
    /// Adding and taking away 1.5 * 2^23 rounds to a whole number, ties to even.
    const ROUND: f32 = 12_582_912.0;
    let (low, high) = extremes(row);
    let scale = (high - low) / 255.0;
    if !(scale >= f32::MIN_POSITIVE && scale.is_finite()) {
        // A row of zeros, or one that is not finite: NaN then reaches the loss.
        out.fill(if scale.is_finite() { 0.0 } else { f32::NAN });
        return;
    }
    let zero = (-low / scale) + ROUND - ROUND;
    let inverse = 1.0 / scale;
    for (out, &x) in out.iter_mut().zip(row) {
        let whole = x * inverse + ROUND - ROUND;
        *out = scale * ((whole + zero).clamp(0.0, 255.0) - zero);
    }
}

/// The least number, at most 0, and the largest, at least 0.
fn extremes(row: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([0.0f32; LANES], [0.0f32; LANES]);
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks.chain([rest]) {
        for ((low, high), &x) in low.iter_mut().zip(&mut high).zip(chunk) {
            (*low, *high) = (low.min(x), high.max(x));
        }
    }
    (low.into_iter().fold(0.0, f32::min), high.into_iter().fold(0.0, f32::max))
}

/// `fake_quantize_weight`.
pub(super) struct FakeQuantizeWeight {
    /// Largest integer.
    pub(super) limit: f32,
}

impl FakeQuantizeWeight {
    /// The integer of a weight in units of its scale, as `dinov2_weights::quantize` rounds it.
    fn integer(&self, weight: f32) -> f32 {
        weight.round().clamp(-self.limit, self.limit)
    }
}

impl CustomOp2 for FakeQuantizeWeight {
    fn name(&self) -> &'static str {
        "fake_quantize_weight"
    }

    fn cpu_fwd(
        &self,
        weight: &CpuStorage,
        layout: &Layout,
        log_scale: &CpuStorage,
        log_scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, k) = layout.shape().dims2()?;
        let (weight, log_scale) = (numbers(weight, layout)?, numbers(log_scale, log_scale_layout)?);
        if log_scale.len() != n {
            bail!("fake_quantize_weight: expected scales [{n}], got [{}]", log_scale.len());
        }
        let mut out = vec![0.0; weight.len()];
        let rows = out.par_chunks_mut(k).zip(weight.par_chunks(k)).zip(log_scale);
        rows.with_min_len(TASK_ROWS).for_each(|((out, row), log_scale)| {
            let scale = log_scale.exp();
            out.iter_mut().zip(row).for_each(|(out, w)| *out = scale * self.integer(w / scale));
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    /// Weights within the range pass the gradient on; a scale gets that of LSQ (Esser et al. 2020, arXiv 1902.08153, eq. 3), times
    /// itself because its logarithm is what learns. LSQ's factor 1 / √(weights · limit) is left out: AdamW divides by the size of
    /// gradients anyway.
    fn bwd(
        &self,
        weight: &Tensor,
        log_scale: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, k) = weight.dims2()?;
        let mut to_weight = vec![0.0; n * k];
        let mut to_scale = vec![0.0; n];
        with_numbers(grad, |grad| {
            with_numbers(weight, |weight| {
                with_numbers(log_scale, |log_scale| {
                    let rows = to_weight.par_chunks_mut(k).zip(&mut to_scale).zip(log_scale);
                    let rows = rows.zip(weight.par_chunks(k)).zip(grad.par_chunks(k));
                    rows.with_min_len(TASK_ROWS).for_each(|((((out, sum), log_scale), row), grad)| {
                        let scale = log_scale.exp();
                        for ((out, &w), &grad) in out.iter_mut().zip(row).zip(grad) {
                            let value = w / scale;
                            let inside = value.abs() <= self.limit;
                            *out = if inside { grad } else { 0.0 };
                            *sum += grad * (self.integer(value) - if inside { value } else { 0.0 });
                        }
                        *sum *= scale;
                    });
                    Ok(())
                })
            })
        })?;
        Ok((Some(tensor(to_weight, (n, k))?), Some(tensor(to_scale, n)?)))
    }
}
