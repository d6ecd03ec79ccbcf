//! int8 products against the scalar definition, bit for bit.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::quantize::quantize_rows;
use crate::simd::isas_under_test;
use crate::test_util::{numbers, relative_l2};

/// How the weights of a case are drawn.
#[derive(Clone, Copy, Debug)]
enum Weights {
    Uniform,
    /// -128, -127 and 127: most sums of products in 16 bits would saturate.
    Extreme,
}

fn weights(kind: Weights, len: usize) -> Vec<i8> {
    let noise = numbers(2, len);
    match kind {
        Weights::Uniform => noise.iter().map(|x| (x * 127.9) as i8).collect(),
        Weights::Extreme => noise.iter().map(|x| [-128, -127, 127][((x + 1.0) * 1.4999) as usize]).collect(),
    }
}

fn check(isa: Isa, pool: &Pool, epilogue: Epilogue, (rows, n, k): (usize, usize, usize), kind: Weights) {
    let values = weights(kind, n * k);
    let scale: Vec<f32> = numbers(5, n).iter().map(|x| (x.abs() + 0.1) * 0.01).collect();
    let bias = numbers(3, n);
    let weight = Int8Weight { values: &values, scale: &scale, bias: &bias, k };
    let layer = match epilogue {
        Epilogue::SwiGlu => PackedLinearI8::pack_gated(isa, weight),
        _ => PackedLinearI8::pack(isa, weight),
    };
    let mut input = numbers(1, rows * k);
    input.iter_mut().step_by(7).for_each(|x| *x = x.abs() * 4.0);
    let mut quantized = QuantizedRows::default();
    quantize_rows(isa, pool, &input, k, &mut quantized);
    let before = numbers(4, rows * layer.out_cols());
    let mut got = before.clone();
    layer.apply(isa, pool, epilogue, &quantized, &mut got);
    let want = scalar::linear(epilogue, &input, weight, &before);
    // The sums are exact: what remains are roundings of the epilogue. With few outputs, all in the tail of GELU, its
    // 5e-7 of the argument weighs more.
    let error = relative_l2(&got, &want);
    assert!(error < 3e-6, "{} {epilogue:?} {kind:?} rows {rows} n {n} k {k}: {error}", isa.name());
}

#[test]
fn every_isa_follows_the_definition_at_awkward_sizes() {
    let pool = Pool::new(core::num::NonZeroUsize::new(2).unwrap());
    let epilogues = [Epilogue::Store, Epilogue::Gelu, Epilogue::Add, Epilogue::SwiGlu];
    for isa in isas_under_test() {
        let cols = isa.panel_cols();
        for kind in [Weights::Uniform, Weights::Extreme] {
            for rows in 1..=2 * isa.dot_tile_rows() + 1 {
                for (n, k) in [(2, 1), (cols - 2, 3), (cols, 7), (cols + 2, 16), (2 * cols + 2, 33)] {
                    epilogues.iter().for_each(|&epilogue| check(isa, &pool, epilogue, (rows, n, k), kind));
                }
            }
            for shape in [(99, 96, 384), (5, 384, 1536), (3, 62, 5000)] {
                epilogues.iter().for_each(|&epilogue| check(isa, &pool, epilogue, shape, kind));
            }
        }
    }
}

/// With unit scales the output is the integer itself: equal on every instruction set, bit for bit.
#[test]
fn sums_are_exact_to_the_last_unit() {
    let (rows, n, k) = (13, 40, 300);
    for isa in isas_under_test() {
        for kind in [Weights::Uniform, Weights::Extreme] {
            let values = weights(kind, n * k);
            let (ones, zeros) = (vec![1.0; n], vec![0.0; n]);
            let weight = Int8Weight { values: &values, scale: &ones, bias: &zeros, k };
            let layer = PackedLinearI8::pack(isa, weight);
            // Whole numbers -100..=155 with both ends in every row: scale 1, zero 100, nothing is rounded.
            let mut input: Vec<f32> = numbers(1, rows * k).iter().map(|x| (x * 100.0).trunc()).collect();
            input.chunks_exact_mut(k).for_each(|row| (row[0], row[k - 1]) = (-100.0, 155.0));
            let mut quantized = QuantizedRows::default();
            quantize_rows(isa, &Pool::single(), &input, k, &mut quantized);
            let mut got = vec![0.0; rows * n];
            layer.apply(isa, &Pool::single(), Epilogue::Store, &quantized, &mut got);
            for (row, got) in input.chunks_exact(k).zip(got.chunks_exact(n)) {
                for (weights, &got) in values.chunks_exact(k).zip(got) {
                    let sum: i64 = row.iter().zip(weights).map(|(&x, &w)| x as i64 * i64::from(w)).sum();
                    assert_eq!(got, sum as f32, "{} {kind:?}", isa.name());
                }
            }
        }
    }
}

#[test]
fn weights_within_32_need_no_extra_steps() {
    let values: Vec<i8> = weights(Weights::Uniform, 64 * 96).iter().map(|w| w / 4).collect();
    let (scale, bias) = (vec![1.0; 64], vec![0.0; 64]);
    let weight = Int8Weight { values: &values, scale: &scale, bias: &bias, k: 96 };
    for isa in isas_under_test() {
        assert_eq!(PackedLinearI8::pack(isa, weight).step_ratio(), 1.0, "{}", isa.name());
    }
}
