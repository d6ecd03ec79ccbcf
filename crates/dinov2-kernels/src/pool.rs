//! Threads for many short parallel steps: `run(tasks, f)` calls `f(0..tasks)` spread over the threads and returns when
//! all are done. A frame has about a hundred such steps of some 100 us, so idle workers spin for a bounded time before
//! they park, and tasks are taken one by one from a shared counter.
//!
//! A task's result must not depend on the thread that runs it; then features are the same for every number of threads.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! let pool = dinov2_kernels::Pool::new(NonZeroUsize::new(2).unwrap());
//! let sum = AtomicUsize::new(0);
//! pool.run(10, &|task| {
//!     sum.fetch_add(task, Ordering::Relaxed);
//! });
//! assert_eq!(sum.into_inner(), 45);
//! ```

#[cfg(all(test, loom))]
mod model;
#[cfg(feature = "std")]
mod sync;
#[cfg(feature = "std")]
mod threads;
#[cfg(feature = "std")]
pub use threads::Pool;

/// Without `std` there are no threads: tasks run one after the other.
#[cfg(not(feature = "std"))]
#[derive(Debug, Default)]
pub struct Pool(());

#[cfg(not(feature = "std"))]
impl Pool {
    /// A pool of the calling thread alone.
    pub fn single() -> Self {
        Self(())
    }

    /// Always 1.
    pub fn threads(&self) -> usize {
        1
    }

    /// Calls `task(0)` to `task(tasks - 1)`.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}
