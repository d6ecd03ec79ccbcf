use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// Spins before a waiting thread parks or yields: some tens of microseconds, longer than the gaps between the steps
/// of one frame and far shorter than the gap between frames.
const SPINS: u32 = 20_000;

/// A fixed set of threads; the calling thread is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// Held while a step runs: the pool runs one step at a time.
    stepping: Mutex<()>,
}

struct Worker {
    parked: Arc<AtomicBool>,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

struct Shared {
    /// Number of the current step. A change is what workers wait for.
    step: AtomicUsize,
    /// The step's work; written only while no worker is inside a step.
    work: UnsafeCell<Option<Work>>,
    /// Next task of the step.
    next: AtomicUsize,
    /// Workers that have not finished the step.
    busy: AtomicUsize,
    /// A task panicked; `run` passes it on.
    panicked: AtomicBool,
    stop: AtomicBool,
}

#[derive(Clone, Copy)]
struct Work {
    task: *const Task<'static>,
    tasks: usize,
}

// SAFETY: `work` is written by `run` while `busy == 0` and read by workers between the release of `step` and their
// decrement of `busy`; `task` points to a `Sync` closure that outlives the step, because `run` waits for it.
#[expect(unsafe_code, reason = "a closure lent to the workers for one step")]
unsafe impl Sync for Shared {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a closure lent to the workers for one step")]
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads, the caller's included.
    ///
    /// # Panics
    /// When the operating system refuses a thread.
    pub fn new(threads: NonZeroUsize) -> Self {
        let shared = Arc::new(Shared {
            step: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers = (1..threads.get()).map(|index| Worker::spawn(index, Arc::clone(&shared))).collect();
        Self { shared, workers, stepping: Mutex::new(()) }
    }

    /// A pool of the calling thread alone.
    pub fn single() -> Self {
        Self::new(NonZeroUsize::MIN)
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        1 + self.workers.len()
    }

    /// Calls `task(0)` to `task(tasks - 1)`, each once, spread over the threads; returns when all have returned.
    ///
    /// # Panics
    /// When a task panics, after the others are done. A task that itself calls `run` on this pool deadlocks.
    pub fn run(&self, tasks: usize, task: &Task<'_>) {
        if self.workers.is_empty() || tasks <= 1 {
            (0..tasks).for_each(task);
            return;
        }
        // A panic in an earlier step poisons the lock but leaves no state behind: `busy` was waited for.
        let _one_step = self.stepping.lock().unwrap_or_else(PoisonError::into_inner);
        self.start(tasks, task);
        let done_in_time = WaitForWorkers(&self.shared);
        self.shared.take_tasks(Work { task: erase(task), tasks });
        drop(done_in_time);
        assert!(!self.shared.panicked.swap(false, Ordering::Relaxed), "a parallel task panicked");
    }

    #[expect(unsafe_code, reason = "a closure lent to the workers for one step")]
    fn start(&self, tasks: usize, task: &Task<'_>) {
        // SAFETY: no worker is inside a step (`busy` is 0 and `stepping` is held), so nobody reads `work` now.
        unsafe { *self.shared.work.get() = Some(Work { task: erase(task), tasks }) };
        self.shared.next.store(0, Ordering::Relaxed);
        self.shared.busy.store(self.workers.len(), Ordering::Relaxed);
        // SeqCst pairs with the worker's store of `parked` followed by its load of `step`: one of the two sees the other.
        self.shared.step.fetch_add(1, Ordering::SeqCst);
        for worker in &self.workers {
            if worker.parked.load(Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
    }
}

/// Forgets the closure's lifetime; `Pool::run` does not return (or unwind) before the last use.
#[expect(unsafe_code, reason = "a closure lent to the workers for one step")]
fn erase(task: &Task<'_>) -> *const Task<'static> {
    // SAFETY: only the lifetime changes; it is dereferenced only while `run` keeps the closure borrowed.
    unsafe { core::mem::transmute::<*const Task<'_>, *const Task<'static>>(task) }
}

/// Waits for the workers when dropped, so that even an unwinding caller keeps the closure alive long enough.
struct WaitForWorkers<'a>(&'a Shared);

impl Drop for WaitForWorkers<'_> {
    fn drop(&mut self) {
        let mut spins = 0;
        while self.0.busy.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < SPINS { core::hint::spin_loop() } else { thread::yield_now() }
        }
    }
}

impl Shared {
    #[expect(unsafe_code, reason = "a closure lent to the workers for one step")]
    fn take_tasks(&self, work: Work) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= work.tasks {
                return;
            }
            // SAFETY: the closure lives until `run` has seen `busy == 0`, which is after this call.
            unsafe { (*work.task)(index) };
        }
    }

    #[expect(unsafe_code, reason = "a closure lent to the workers for one step")]
    fn work_until_stopped(&self, parked: &AtomicBool) {
        let mut seen = 0;
        loop {
            seen = self.wait_for_step(seen, parked);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            // SAFETY: the new value of `step` was seen, so `run` has written `work` and won't again before `busy` is 0.
            if let Some(work) = unsafe { *self.work.get() } {
                let outcome =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.take_tasks(work)));
                if outcome.is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }

    fn wait_for_step(&self, seen: usize, parked: &AtomicBool) -> usize {
        let mut spins = 0;
        loop {
            let step = self.step.load(Ordering::SeqCst);
            if step != seen {
                return step;
            }
            spins += 1;
            if spins < SPINS {
                core::hint::spin_loop();
                continue;
            }
            parked.store(true, Ordering::SeqCst);
            while self.step.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            parked.store(false, Ordering::SeqCst);
        }
    }
}

impl Worker {
    fn spawn(index: usize, shared: Arc<Shared>) -> Self {
        let parked = Arc::new(AtomicBool::new(false));
        let handle = {
            let parked = Arc::clone(&parked);
            let named = thread::Builder::new().name(format!("dinov2-{index}"));
            named
                .spawn(move || shared.work_until_stopped(&parked))
                .expect("the operating system starts a thread")
        };
        Self { parked, thread: handle.thread().clone(), handle: Some(handle) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.step.fetch_add(1, Ordering::SeqCst);
        for worker in &mut self.workers {
            worker.thread.unpark();
            if let Some(handle) = worker.handle.take() {
                // A worker catches its tasks' panics, so joining cannot fail in a way that matters here.
                let _ = handle.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU32;
    use std::time::Duration;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).unwrap())
    }

    #[test]
    fn every_task_runs_once_in_every_step() {
        for threads in [1, 2, 5] {
            let pool = pool(threads);
            for tasks in [0, 1, 2, 3, 17, 1000] {
                let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                for _ in 0..20 {
                    pool.run(tasks, &|index| {
                        counts[index].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 20), "{threads} {tasks}");
            }
        }
    }

    #[test]
    fn parked_workers_wake_up() {
        let pool = pool(3);
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(20));
            let sum = AtomicUsize::new(0);
            pool.run(100, &|index| {
                sum.fetch_add(index, Ordering::Relaxed);
            });
            assert_eq!(sum.load(Ordering::Relaxed), 4950);
        }
    }

    #[test]
    fn a_panicking_task_is_passed_on_and_the_pool_lives_on() {
        let pool = pool(3);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(50, &|index| assert!(index != 20, "on purpose"));
        }));
        assert!(outcome.is_err());
        let count = AtomicUsize::new(0);
        pool.run(50, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 50);
    }
}
