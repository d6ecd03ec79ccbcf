//! Attention in 16-bit integers against the definition in f64.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::attention::scalar;
use crate::simd::isas_under_test;
use crate::test_util::{numbers, relative_l2, token_counts};

fn run(isa: Isa, pool: &Pool, shape: AttentionShape, qkv: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; shape.tokens * shape.dim()];
    attention_i16(isa, pool, shape, qkv, &mut KeyValuePanelsI16::default(), &mut out);
    out
}

/// Values of 9 bits and a sign are off by up to 1e-3 of a channel's largest, 6e-4 in the mean of uniform ones; a mean
/// over many keys smooths that, but shrinks itself as well.
const TOLERANCE: f64 = 1.5e-3;

#[test]
fn every_isa_follows_the_definition() {
    let pool = Pool::new(core::num::NonZeroUsize::new(2).unwrap());
    let isas = isas_under_test();
    for tokens in token_counts() {
        for (heads, head_dim, spread) in
            [(1, 64, 1.0), (2, 5, 1.0), (3, 24, 1.0), (1, 64, 4.0), (2, 32, 1e-3)]
        {
            let shape = AttentionShape { tokens, heads, head_dim };
            let qkv: Vec<f32> = numbers(9, tokens * 3 * shape.dim()).iter().map(|x| x * spread).collect();
            let want = scalar::attention(shape, &qkv).0;
            for &isa in &isas {
                let error = relative_l2(&run(isa, &pool, shape, &qkv), &want);
                assert!(error < TOLERANCE, "{} {shape:?} spread {spread}: {error}", isa.name());
            }
        }
    }
}

#[test]
fn extremes_neither_overflow_nor_vanish() {
    // All factors at their limits, so that every sum is as large as it can be.
    for isa in isas_under_test() {
        for head_dim in [1, 64, 256] {
            let shape = AttentionShape { tokens: 300, heads: 1, head_dim };
            let qkv: Vec<f32> = vec![-3.0; 300 * 3 * head_dim];
            let got = run(isa, &Pool::single(), shape, &qkv);
            assert!(got.iter().all(|x| (x + 3.0).abs() < 1e-5), "{} {head_dim}", isa.name());
            let zeros = run(isa, &Pool::single(), shape, &vec![0.0; qkv.len()]);
            assert!(zeros.iter().all(|x| *x == 0.0), "{} {head_dim}", isa.name());
        }
    }
}

#[test]
fn scores_far_apart_pick_one_value() {
    // The largest score comes last, so that everything before it must be forgotten.
    let shape = AttentionShape { tokens: 520, heads: 1, head_dim: 16 };
    let mut qkv = numbers(11, shape.tokens * 3 * 16);
    for (token, row) in qkv.chunks_exact_mut(48).enumerate() {
        row[..16].fill(10.0);
        row[16..32].fill(token as f32 - 400.0);
    }
    for isa in isas_under_test() {
        let out = run(isa, &Pool::single(), shape, &qkv);
        let last_value = &qkv[519 * 48 + 32..][..16];
        assert!(out.chunks_exact(16).all(|row| relative_l2(row, last_value) < TOLERANCE), "{}", isa.name());
    }
}
