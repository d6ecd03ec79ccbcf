//! The definition, in double precision.

use super::AttentionShape;
use alloc::vec;
use alloc::vec::Vec;

/// Returns `out: [n, dim]` and the attention of the first token, `[heads, n]`.
pub(crate) fn attention(shape: AttentionShape, qkv: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let AttentionShape { tokens, heads, head_dim } = shape;
    let dim = heads * head_dim;
    let qkv: Vec<f64> = qkv.iter().map(|&x| f64::from(x)).collect();
    let part = |token: usize, part: usize, head: usize| {
        &qkv[token * 3 * dim + part * dim + head * head_dim..][..head_dim]
    };
    let mut out = vec![0.0; tokens * dim];
    let mut cls = vec![0.0; heads * tokens];
    for head in 0..heads {
        for query in 0..tokens {
            let factors = |key| part(query, 0, head).iter().zip(part(key, 1, head));
            let score = |key| factors(key).map(|(q, k)| q * k).sum::<f64>() / (head_dim as f64).sqrt();
            let scores: Vec<f64> = (0..tokens).map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..head_dim {
                let sum: f64 = (0..tokens).map(|key| weights[key] * part(key, 2, head)[i]).sum();
                out[query * dim + head * head_dim + i] = (sum / total) as f32;
            }
            if query == 0 {
                (0..tokens).for_each(|key| cls[head * tokens + key] = (weights[key] / total) as f32);
            }
        }
    }
    (out, cls)
}
