//! Points `[n, dim]` behind a trait, so that clustering and search work on f32, f16 and subsets; dot products in f32.

use std::ops::Range;

use rayon::prelude::*;

/// Points in a vector space.
pub trait Points: Sync {
    /// How many.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers of each.
    fn dim(&self) -> usize;

    /// Writes point `index` into `out: [dim]`.
    fn write(&self, index: usize, out: &mut [f32]);

    /// Writes several points below each other, replacing what was in `out`.
    fn write_range(&self, range: Range<usize>, out: &mut Vec<f32>) {
        out.resize(range.len() * self.dim(), 0.0);
        for (index, out) in range.zip(out.chunks_exact_mut(self.dim())) {
            self.write(index, out);
        }
    }
}

/// Points in 32-bit floats: `[n, dim]`.
#[derive(Clone, Copy, Debug)]
pub struct Floats<'a> {
    /// `[n, dim]`
    pub numbers: &'a [f32],
    /// Positive.
    pub dim: usize,
}

impl Points for Floats<'_> {
    fn len(&self) -> usize {
        self.numbers.len() / self.dim
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn write(&self, index: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.numbers[index * self.dim..][..self.dim]);
    }
}

/// Some of the points of a set, in an order of their own.
#[derive(Clone, Copy, Debug)]
pub struct Subset<'a, P> {
    /// All of them.
    pub points: &'a P,
    /// Which.
    pub members: &'a [u32],
}

impl<P: Points> Points for Subset<'_, P> {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn dim(&self) -> usize {
        self.points.dim()
    }

    fn write(&self, index: usize, out: &mut [f32]) {
        self.points.write(self.members[index] as usize, out);
    }
}

/// `Σ left * right`, both `[dim]`.
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    sum_pairs(left, right, |left, right| left * right)
}

/// `Σ (left - right)²`, both `[dim]`.
pub(super) fn squared_distance(left: &[f32], right: &[f32]) -> f32 {
    sum_pairs(left, right, |left, right| (left - right) * (left - right))
}

/// Sixteen sums at a time, so that the compiler may use vectors.
#[inline(always)]
fn sum_pairs(left: &[f32], right: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (left_blocks, left_rest) = left.as_chunks::<16>();
    let (right_blocks, right_rest) = right.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for (left, right) in left_blocks.iter().zip(right_blocks) {
        for lane in 0..16 {
            sums[lane] += term(left[lane], right[lane]);
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| term(*left, *right)).sum();
    sums.iter().sum::<f32>() + rest
}

/// Calls `work(range, scratch)` on blocks of points, on all threads; what it returns comes in the order of the blocks.
pub(super) fn map_blocks<T: Send>(
    count: usize,
    block: usize,
    work: impl Fn(Range<usize>, &mut Vec<f32>) -> T + Sync,
) -> Vec<T> {
    let blocks = count.div_ceil(block);
    (0..blocks)
        .into_par_iter()
        .map_init(Vec::new, |scratch, index| work(index * block..((index + 1) * block).min(count), scratch))
        .collect()
}
