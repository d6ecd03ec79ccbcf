//! Deterministic numbers and error measures for the kernel tests.

use alloc::vec::Vec;

/// Numbers of tokens to try attention with: around vectors and tiles, and around blocks of 256 keys. An emulated CPU would
/// take minutes; it gets one block and one key more. The test of widely spread scores covers a third block.
pub(crate) fn token_counts() -> impl Iterator<Item = usize> {
    let around_blocks: &[usize] = if cfg!(emulated) { &[256, 257] } else { &[255, 256, 257, 258, 513, 600] };
    (1..=34).chain(around_blocks.iter().copied())
}

/// Uniform in -1..1 from a linear congruential generator: the same on every machine.
pub(crate) fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // Constants of Knuth's MMIX generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// `|got - want| / |want|` in the Euclidean norm.
pub(crate) fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - f64::from(*w)).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
    if norm == 0.0 { error.sqrt() } else { (error / norm).sqrt() }
}
