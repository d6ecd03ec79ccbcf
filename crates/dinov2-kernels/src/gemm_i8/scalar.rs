//! The definition: exact integer sums, the rest in double precision, rounded once.

use alloc::vec::Vec;

use super::Int8Weight;
use crate::activation::scalar::{gelu, silu};
use crate::epilogue::Epilogue;
use crate::quantize::scalar::quantize_row;

/// `input: [rows, k]` is quantized per row first. `before`: what `out` held, read by [`Epilogue::Add`].
pub(crate) fn linear(epilogue: Epilogue, input: &[f32], weight: Int8Weight<'_>, before: &[f32]) -> Vec<f32> {
    let Int8Weight { values, scale, bias, k } = weight;
    let mut out = Vec::new();
    for row in input.chunks_exact(k) {
        let (factors, row_scale, zero) = quantize_row(row);
        let channel = |(channel, weights): (usize, &[i8])| {
            // |(q - zero) * w| <= 255 * 128, so k < 2^16 fits i32.
            let products = factors.iter().zip(weights).map(|(&q, &w)| (i32::from(q) - zero) * i32::from(w));
            f64::from(products.sum::<i32>()) * f64::from(row_scale) * f64::from(scale[channel])
                + f64::from(bias[channel])
        };
        let sums: Vec<f64> = values.chunks_exact(k).enumerate().map(channel).collect();
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
