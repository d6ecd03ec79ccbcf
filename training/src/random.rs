//! Random numbers as pure functions of their purpose: never of threads, time or the order of calls.
//!
//! [`stream`] is for code that works with the crate `rand`; `Random` draws views, orders and samples with arithmetic of its own, so
//! that its numbers do not change with a version of `rand`.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// The random stream for a seed, a purpose and an index (a step, a sample).
pub fn stream(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(index.to_le_bytes());
    hash.update(purpose.as_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// Purpose of a stream: streams of different purposes are independent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    View = 1,
    Mix = 2,
    Sides = 3,
    Epoch = 4,
    Replacement = 5,
    Curation = 6,
}

/// The stream for a purpose, a seed and two indices. All of them are in ChaCha's key, so no two streams are the same.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(purpose: Purpose, seed: u64, first: u64, second: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, first, second, purpose as u64]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in 0..1, of 53 bits.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `low..high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..count`; `count` is positive. Lemire's multiplication without his rejection: no number is likelier than
    /// another by more than `count / 2^64`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.0.next_u64()) * count as u128) >> 64) as usize
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < f64::from(probability)
    }

    /// Brings `items` into a random order (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
