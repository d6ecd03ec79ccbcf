//! Upper bounds for the kernels' speed on this machine: arithmetic, by loops of only the GEMMs' instructions on as many registers as
//! their tiles have; memory, by a pass over more bytes than caches hold.
//!
//! A multiplication and an addition count as two operations. Each figure is the fastest of many repetitions, because other load can
//! only make one slower. Caches and loads into registers are not measured; kernels need them too, so they stay below the peak.
//!
//! ```no_run
//! use dinov2_kernels::peak::{Arithmetic, operations_per_second};
//! use dinov2_kernels::{Isa, Pool};
//!
//! let rate = operations_per_second(Isa::detect(), &Pool::single(), Arithmetic::F32);
//! println!("{:.0} GFLOP/s", rate / 1e9);
//! ```

mod arithmetic;
mod memory;

use std::time::{Duration, Instant};

use crate::{Isa, Pool};

/// Time for each figure.
const BUDGET: Duration = Duration::from_millis(200);

/// Least repetitions of each.
const REPETITIONS: u32 = 4;

/// Tasks for each thread: several, so that a thread which starts late costs little.
const TASKS_PER_THREAD: usize = 4;

/// Arithmetic that a peak is measured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Fused multiply-add of f32, or a multiplication and an addition where there is none.
    F32,
    /// Products of 16-bit floats: those of [`crate::gemm_half`].
    Half,
    /// Dot products of bytes: those of [`crate::gemm_i8`].
    Int8,
    /// Dot products of 16-bit pairs: those of [`crate::attention_i16`].
    Int16,
}

impl Arithmetic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::Half, Self::Int8, Self::Int16];

    /// `f32`, `half`, `int8` or `int16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Half => "half",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
        }
    }
}

/// Most operations per second that `isa` reaches on the threads of `pool`, all operands in registers.
pub fn operations_per_second(isa: Isa, pool: &Pool, arithmetic: Arithmetic) -> f64 {
    let tasks = TASKS_PER_THREAD * pool.threads();
    let operations = tasks as u64 * arithmetic::task_operations(isa, arithmetic);
    let seconds = fastest(|| pool.run(tasks, &|_| arithmetic::run_task(isa, arithmetic)));
    operations as f64 / seconds
}

/// Bytes per second that the threads of `pool` read from a buffer of `bytes`, which should be several times what the
/// caches hold. It takes that much memory.
pub fn read_bytes_per_second(isa: Isa, pool: &Pool, bytes: usize) -> f64 {
    let buffer = memory::Buffer::new(pool, bytes);
    let seconds = fastest(|| buffer.read(isa, pool));
    buffer.bytes() as f64 / seconds
}

/// Seconds of the fastest repetition.
fn fastest(mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut fastest = Duration::MAX;
    let mut repetitions = 0;
    while repetitions < REPETITIONS || begin.elapsed() < BUDGET {
        let start = Instant::now();
        work();
        fastest = fastest.min(start.elapsed());
        repetitions += 1;
    }
    // A clock too coarse for a task would make this zero.
    fastest.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epilogue;
    use crate::gemm_f32::PackedLinear;
    use crate::simd::isas_under_test;
    use core::num::NonZeroUsize;

    #[test]
    fn kernels_stay_below_the_peak() {
        let pool = Pool::single();
        let (rows, n, k) = (24, 384, 384);
        for isa in isas_under_test() {
            let layer = PackedLinear::pack(isa, &vec![0.01; n * k], &vec![0.0; n], k);
            let (input, mut out) = (vec![0.5; rows * k], vec![0.0; rows * n]);
            let seconds = fastest(|| layer.apply(isa, &pool, Epilogue::Store, &input, &mut out));
            let rate = 2.0 * (rows * n * k) as f64 / seconds;
            let peak = operations_per_second(isa, &pool, Arithmetic::F32);
            // Room for a machine that does other things meanwhile.
            assert!(rate < 3.0 * peak, "{}: {rate:e} {peak:e}", isa.name());
            // Two 512-bit units at 6 GHz do 4e11; a loop that the compiler emptied does far more.
            assert!(peak < 1e12, "{}: {peak:e}", isa.name());
        }
    }

    #[test]
    fn reading_takes_time() {
        let pool = Pool::new(NonZeroUsize::new(2).unwrap());
        // Two threads of no CPU read a terabyte per second: a pass that the compiler removed would.
        let rate = read_bytes_per_second(Isa::detect(), &pool, 64 << 20);
        assert!((1e7..1e12).contains(&rate), "{rate:e}");
    }
}
