//! The definition, in double precision.

use super::LayerNorm;
use alloc::vec::Vec;

pub(crate) fn layer_norm(params: &LayerNorm<'_>, input: &[f32]) -> Vec<f32> {
    let dim = params.gamma.len();
    let mut output = Vec::with_capacity(input.len());
    for row in input.chunks_exact(dim) {
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / dim as f64;
        let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / dim as f64;
        let inverse = 1.0 / (variance + f64::from(params.eps)).sqrt();
        for ((&x, &gamma), &beta) in row.iter().zip(params.gamma).zip(params.beta) {
            output.push(((f64::from(x) - mean) * inverse * f64::from(gamma) + f64::from(beta)) as f32);
        }
    }
    output
}
