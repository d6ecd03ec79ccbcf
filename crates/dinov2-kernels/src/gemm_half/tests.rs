//! Products of 16-bit floats against the scalar definition.

use alloc::vec;

use super::*;
use crate::layer_norm::{self, LayerNorm};
use crate::simd::isas_under_test;
use crate::test_util::{numbers, relative_l2};

fn check(isa: Isa, pool: &Pool, epilogue: Epilogue, (rows, n, k): (usize, usize, usize)) {
    let (input, weight, bias) = (numbers(1, rows * k), numbers(2, n * k), numbers(3, n));
    let layer = match epilogue {
        Epilogue::SwiGlu => PackedLinearHalf::pack_gated(isa, &weight, &bias, k),
        _ => PackedLinearHalf::pack(isa, &weight, &bias, k),
    };
    let mut rounded = HalfRows::default();
    round_rows(isa, pool, &input, k, &mut rounded);
    let before = numbers(4, rows * layer.out_cols());
    let mut got = before.clone();
    layer.apply(isa, pool, epilogue, &rounded, &mut got);
    let format = isa.half_format();
    let want = scalar::linear(format, epilogue, (&input, &weight, &bias), k, &before);
    let tolerance = match format {
        // Products are exact in f32: what remains is what f32's GEMM has.
        HalfFormat::Bf16 => 1e-6 + 4e-8 * (k as f64).sqrt(),
        // Up to 64 sums in f16, each rounded by 2^-12 at most; SwiGLU multiplies two of such results.
        HalfFormat::F16 => 3e-3,
    };
    let error = relative_l2(&got, &want);
    assert!(error < tolerance, "{} {epilogue:?} rows {rows} n {n} k {k}: {error}", isa.name());
}

#[test]
fn every_isa_follows_the_definition_at_awkward_sizes() {
    let pool = Pool::new(core::num::NonZeroUsize::new(2).unwrap());
    let epilogues = [Epilogue::Store, Epilogue::Gelu, Epilogue::Add, Epilogue::SwiGlu];
    for isa in isas_under_test() {
        let cols = isa.panel_cols();
        for rows in 1..=2 * isa.half_tile_rows() + 1 {
            for (n, k) in [(2, 1), (cols - 2, 3), (cols, 7), (cols + 2, 16), (2 * cols + 2, 33)] {
                epilogues.iter().for_each(|&epilogue| check(isa, &pool, epilogue, (rows, n, k)));
            }
        }
        for shape in [(99, 96, 384), (5, 384, 1536), (3, 62, 5000)] {
            epilogues.iter().for_each(|&epilogue| check(isa, &pool, epilogue, shape));
        }
    }
}

/// Powers of two and small whole numbers: nothing is rounded, so every set has the same bits.
#[test]
fn exact_numbers_stay_exact() {
    let (rows, n, k) = (7, 40, 50);
    let whole = |seed, len| numbers(seed, len).iter().map(|x| (x * 4.0).trunc()).collect::<vec::Vec<_>>();
    let (input, weight, bias) = (whole(1, rows * k), whole(2, n * k), whole(3, n));
    let mut want = vec![0.0; rows * n];
    for (row, out) in input.chunks_exact(k).zip(want.chunks_exact_mut(n)) {
        for ((out, weight), bias) in out.iter_mut().zip(weight.chunks_exact(k)).zip(&bias) {
            *out = row.iter().zip(weight).map(|(x, w)| x * w).sum::<f32>() + bias;
        }
    }
    for isa in isas_under_test() {
        let mut rounded = HalfRows::default();
        round_rows(isa, &Pool::single(), &input, k, &mut rounded);
        let mut got = vec![0.0; rows * n];
        let layer = PackedLinearHalf::pack(isa, &weight, &bias, k);
        layer.apply(isa, &Pool::single(), Epilogue::Store, &rounded, &mut got);
        assert_eq!(got, want, "{}", isa.name());
    }
}

/// Multiplied by the identity, rounded rows come out as they are.
#[test]
fn the_fused_layer_norm_rounds_the_normalised_row() {
    let pool = Pool::single();
    for isa in isas_under_test() {
        for dim in [1, 7, 8, 33, 64, 65, 384, 600] {
            let (input, gamma, beta) = (numbers(1, 5 * dim), numbers(2, dim), numbers(3, dim));
            let params = LayerNorm { gamma: &gamma, beta: &beta, eps: 1e-6 };
            let mut fused = HalfRows::default();
            layer_norm_rounded(isa, &pool, &params, &input, &mut fused);
            let mut identity = vec![0.0; dim * dim];
            identity.iter_mut().step_by(dim + 1).for_each(|one| *one = 1.0);
            let mut got = vec![0.0; 5 * dim];
            let layer = PackedLinearHalf::pack(isa, &identity, &vec![0.0; dim], dim);
            layer.apply(isa, &pool, Epilogue::Store, &fused, &mut got);
            let epsilon = match isa.half_format() {
                HalfFormat::Bf16 => 1.0 / 256.0,
                HalfFormat::F16 => 1.0 / 2048.0,
            };
            for (got, want) in got.iter().zip(layer_norm::scalar::layer_norm(&params, &input)) {
                assert_eq!(*got, scalar::rounded(isa.half_format(), *got), "{}", isa.name());
                assert!((got - want).abs() <= want.abs() * epsilon + 1e-5, "{} {got} {want}", isa.name());
            }
        }
    }
}
