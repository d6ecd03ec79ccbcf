//! The pass over memory.

use core::hint::black_box;

use crate::disjoint::Disjoint;
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::{AlignedBuffer, Isa, Pool};

/// Numbers that one task reads: 1 MiB, many for each thread.
const TASK_LEN: usize = 1 << 18;

/// Vectors added side by side, so that additions never hold up the loads.
const CHAINS: usize = 8;

/// Memory to read.
pub(super) struct Buffer {
    values: AlignedBuffer,
}

impl Buffer {
    /// At least `bytes`, in whole tasks, written once: pages that were never written share one page of zeros, which
    /// would be read from a cache.
    pub(super) fn new(pool: &Pool, bytes: usize) -> Self {
        let tasks = bytes.div_ceil(TASK_LEN * size_of::<f32>()).max(1);
        let mut values = AlignedBuffer::zeroed(tasks * TASK_LEN);
        let slots = Disjoint::new(&mut values);
        pool.run(tasks, &|task| {
            #[expect(unsafe_code, reason = "parts are shared out among tasks")]
            // SAFETY: this task alone writes this part.
            let slots = unsafe { slots.slice(task * TASK_LEN, TASK_LEN) };
            slots.fill(1.0);
        });
        Self { values }
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.bytes()
    }

    /// Reads all of it.
    pub(super) fn read(&self, isa: Isa, pool: &Pool) {
        pool.run(self.values.len() / TASK_LEN, &|task| {
            black_box(isa.run(Sum(&self.values[task * TASK_LEN..][..TASK_LEN])));
        });
    }
}

/// The sum of [`TASK_LEN`] values.
struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    #[expect(unsafe_code, reason = "vector loads")]
    fn run<S: Simd>(self, simd: S) -> f32 {
        const { assert!(TASK_LEN.is_multiple_of(CHAINS * MAX_LANES)) };
        let mut sums = [simd.splat(0.0); CHAINS];
        for run in self.0.chunks_exact(CHAINS * S::LANES) {
            for (at, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `run` is CHAINS vectors long.
                *sum = simd.add(*sum, unsafe { simd.load(run.as_ptr().add(at * S::LANES)) });
            }
        }
        sums.into_iter().map(|sum| simd.sum(sum)).sum()
    }
}
