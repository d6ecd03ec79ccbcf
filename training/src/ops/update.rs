//! Updates of weights after the backward pass. Nothing here is differentiated.

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

use super::is_fused;
use super::rows::{tensor, with_numbers};

/// Numbers that one task works on.
const TASK_NUMBERS: usize = 1 << 15;

/// Coefficients of one step of AdamW, bias corrections included.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// Decays of the two moments.
    pub betas: [f64; 2],
    /// `learning rate / (1 - β₁ᵗ)`.
    pub step_size: f64,
    /// `1 / (1 - β₂ᵗ)`.
    pub square_factor: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// Factor of weight decay.
    pub keep: f64,
}

/// New weights and moments. `moments`: mean of gradients, mean of their squares.
///
/// # Errors
/// Those of candle.
pub fn adam_step(
    step: AdamStep,
    weights: &Tensor,
    grad: &Tensor,
    moments: [&Tensor; 2],
) -> Result<(Tensor, [Tensor; 2])> {
    if is_fused(weights) {
        return with_numbers(grad, |grad| {
            with_numbers(weights, |numbers| fused(step, numbers, grad, moments, weights))
        });
    }
    let [beta1, beta2] = step.betas;
    let (weights, grad) = (weights.detach(), grad.to_dtype(weights.dtype())?.detach());
    let mean = ((moments[0] * beta1)? + (&grad * (1.0 - beta1))?)?;
    let square = ((moments[1] * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?;
    let root = ((&square * step.square_factor)?.sqrt()? + step.epsilon)?;
    let weights = ((weights * step.keep)? - (mean.div(&root)? * step.step_size)?)?;
    Ok((weights, [mean, square]))
}

fn fused(
    step: AdamStep,
    weights: &[f32],
    grad: &[f32],
    moments: [&Tensor; 2],
    like: &Tensor,
) -> Result<(Tensor, [Tensor; 2])> {
    let mut weights = weights.to_vec();
    let mut mean = with_numbers(moments[0], |mean| Ok(mean.to_vec()))?;
    let mut square = with_numbers(moments[1], |square| Ok(square.to_vec()))?;
    let [beta1, beta2] = step.betas.map(|beta| beta as f32);
    let (step_size, square_factor) = (step.step_size as f32, step.square_factor as f32);
    let (epsilon, keep) = (step.epsilon as f32, step.keep as f32);
    let tasks = weights.par_chunks_mut(TASK_NUMBERS).zip(grad.par_chunks(TASK_NUMBERS));
    let moments = mean.par_chunks_mut(TASK_NUMBERS).zip(square.par_chunks_mut(TASK_NUMBERS));
    tasks.zip(moments).for_each(|((weights, grad), (mean, square))| {
        for (((weight, grad), mean), square) in weights.iter_mut().zip(grad).zip(mean).zip(square) {
            *mean = beta1 * *mean + (1.0 - beta1) * grad;
            *square = beta2 * *square + (1.0 - beta2) * grad * grad;
            *weight = *weight * keep - step_size * *mean / ((*square * square_factor).sqrt() + epsilon);
        }
    });
    let shape = like.shape();
    Ok((tensor(weights, shape)?, [tensor(mean, shape)?, tensor(square, shape)?]))
}

/// `decay · average + (1 - decay) · weights`.
///
/// # Errors
/// Those of candle.
pub fn average_step(decay: f64, average: &Tensor, weights: &Tensor) -> Result<Tensor> {
    if !is_fused(average) {
        return (average * decay)? + (weights.detach() * (1.0 - decay))?;
    }
    let decay = decay as f32;
    with_numbers(average, |average| {
        with_numbers(weights, |weights| {
            let mut out = average.to_vec();
            out.par_chunks_mut(TASK_NUMBERS).zip(weights.par_chunks(TASK_NUMBERS)).for_each(
                |(out, weights)| {
                    out.iter_mut()
                        .zip(weights)
                        .for_each(|(out, weight)| *out += (1.0 - decay) * (weight - *out));
                },
            );
            Ok(out)
        })
    })
    .and_then(|numbers| tensor(numbers, average.shape()))
}

/// `Σ x²`, in f64 over parts in f32.
///
/// # Errors
/// Those of candle.
pub fn sum_of_squares(numbers: &Tensor) -> Result<f64> {
    if !is_fused(numbers) {
        return numbers.to_dtype(DType::F32)?.sqr()?.sum_all()?.to_scalar::<f32>().map(f64::from);
    }
    with_numbers(numbers, |numbers| {
        let parts: Vec<f64> = numbers
            .par_chunks(TASK_NUMBERS)
            .map(|part| part.iter().map(|value| f64::from(*value) * f64::from(*value)).sum())
            .collect();
        Ok(parts.iter().sum())
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn numbers(seed: usize, dtype: DType) -> Tensor {
        let numbers: Vec<f64> = (0..40).map(|at| ((at * 7 + seed) as f64 * 0.61).sin()).collect();
        Tensor::from_vec(numbers, (5, 8), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn distance(fused: &Tensor, composed: &Tensor) -> f64 {
        let fused = fused.to_dtype(DType::F64).unwrap();
        (fused - composed).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    /// GPUs run the composed form, which here is that of f64.
    #[test]
    fn fused_and_composed_updates_agree() {
        let [weights, grad, mean] =
            [1, 2, 3].map(|seed| [DType::F32, DType::F64].map(|dtype| numbers(seed, dtype)));
        let square = [DType::F32, DType::F64].map(|dtype| numbers(4, dtype).sqr().unwrap());
        let step =
            AdamStep { betas: [0.9, 0.99], step_size: 0.1, square_factor: 5.0, epsilon: 1e-8, keep: 0.99 };
        let update =
            |form: usize| adam_step(step, &weights[form], &grad[form], [&mean[form], &square[form]]).unwrap();
        let (fused, composed) = (update(0), update(1));
        assert!(distance(&fused.0, &composed.0) < 1e-5);
        assert!((0..2).all(|moment| distance(&fused.1[moment], &composed.1[moment]) < 1e-6));
        let average = |form: usize| average_step(0.9, &mean[form], &weights[form]).unwrap();
        assert!(distance(&average(0), &average(1)) < 1e-6);
        let sums = [0, 1].map(|form| sum_of_squares(&grad[form]).unwrap());
        assert!((sums[0] - sums[1]).abs() < 1e-5 * sums[1], "{sums:?}");
    }
}
