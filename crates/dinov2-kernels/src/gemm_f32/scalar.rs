//! The definition: sums in double precision, rounded once.
#![cfg(test)]

use crate::activation::scalar::{gelu, silu};
use crate::epilogue::Epilogue;
use alloc::vec::Vec;

/// `before`: what `out` held, read by [`Epilogue::Add`].
pub(crate) fn linear(
    epilogue: Epilogue,
    input: &[f32],
    weight: &[f32],
    bias: &[f32],
    k: usize,
    before: &[f32],
) -> Vec<f32> {
    let mut out = Vec::new();
    for row in input.chunks_exact(k) {
        let channel = |(weight, &bias): (&[f32], &f32)| {
            let products = row.iter().zip(weight).map(|(&x, &w)| f64::from(x) * f64::from(w));
            products.sum::<f64>() + f64::from(bias)
        };
        let sums: Vec<f64> = weight.chunks_exact(k).zip(bias).map(channel).collect();
        match epilogue {
            Epilogue::Store => out.extend(sums.iter().map(|&x| x as f32)),
            Epilogue::Gelu => out.extend(sums.iter().map(|&x| gelu(x) as f32)),
            Epilogue::Add => {
                let old = &before[out.len()..][..sums.len()];
                out.extend(sums.iter().zip(old).map(|(&x, &old)| (x + f64::from(old)) as f32));
            }
            Epilogue::SwiGlu => {
                let (gate, value) = sums.split_at(sums.len() / 2);
                out.extend(gate.iter().zip(value).map(|(&gate, &value)| (silu(gate) * value) as f32));
            }
        }
    }
    out
}
