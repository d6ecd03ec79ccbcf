//! The pool of threads: who may touch a step's work when, and who sleeps until whom.
//!
//! A step is opened by one store to `state`, entered and left by workers through the same number, and closed by the caller, who then
//! waits until nobody is inside. Every ordering here is model-checked (`model.rs`).
//!
//! What it does not do: run steps side by side, or steps within steps.

use core::num::NonZeroUsize;
use core::sync::atomic::Ordering;
use std::sync::PoisonError;

use super::sync::thread::{self, JoinHandle, Thread};
use super::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, UnsafeCell, fence, spin_loop};

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// Spins before a waiting thread parks or yields: some tens of microseconds, longer than the gaps between the steps
/// of one frame and far shorter than the gap between frames.
/// One under the model checker, so that threads park within few steps.
const SPINS: u32 = if cfg!(loom) { 1 } else { 20_000 };

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
    /// Number of the current step, whether it is open to workers, and how many are inside: see [`State`].
    state: AtomicU64,
    /// The step's work; written only while the step is closed and nobody is inside.
    work: UnsafeCell<Option<Work>>,
    /// Next task of the step.
    next: AtomicUsize,
    /// Workers that are up.
    started: AtomicUsize,
    /// A task panicked; `run` passes it on.
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// `step << 32 | open << 31 | inside`. A worker enters only an open step, so a step never waits for a worker that the
/// operating system has not woken yet: on a busy machine the caller does the work itself.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State(u64);

impl State {
    const OPEN: u64 = 1 << 31;

    fn step(self) -> u64 {
        self.0 >> 32
    }

    fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    fn inside(self) -> u64 {
        self.0 & (Self::OPEN - 1)
    }

    /// The step after this one, open, with nobody inside. Only equality of step numbers matters, so they may wrap.
    fn next_step(self) -> Self {
        Self((self.step() + 1) << 32 | Self::OPEN)
    }
}

#[derive(Clone, Copy)]
struct Work {
    task: *const Task<'static>,
    tasks: usize,
}

// SAFETY: `work` is written by `run` while the step is closed and nobody is inside, and read by workers while they are
// inside; `task` points to a `Sync` closure that outlives the step, because `run` waits until nobody is inside.
#[expect(unsafe_code, reason = "a closure lent to the workers for one step")]
unsafe impl Sync for Shared {}
// SAFETY: the only part that is not `Send` by itself is the pointer in `work`, to a closure that is `Sync`: any thread may call it.
#[expect(unsafe_code, reason = "a closure lent to the workers for one step")]
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads, the caller's included.
    ///
    /// # Panics
    /// When the operating system refuses a thread.
    pub fn new(threads: NonZeroUsize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            work: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers: Vec<Worker> =
            (1..threads.get()).map(|index| Worker::spawn(index, Arc::clone(&shared))).collect();
        // A thread allocates while it starts: that belongs here, not into some later frame.
        while shared.started.load(Ordering::Acquire) < workers.len() {
            thread::yield_now();
        }
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
        // A panic in an earlier step poisons the lock but leaves no state behind: that step was closed.
        let _one_step = self.stepping.lock().unwrap_or_else(PoisonError::into_inner);
        self.open_step(tasks, task);
        let closed_in_time = CloseStep(&self.shared);
        self.shared.take_tasks(Work { task: erase(task), tasks });
        drop(closed_in_time);
        assert!(!self.shared.panicked.swap(false, Ordering::Relaxed), "a parallel task panicked");
    }

    #[expect(unsafe_code, reason = "a closure lent to the workers for one step")]
    fn open_step(&self, tasks: usize, task: &Task<'_>) {
        // SAFETY: the last step was closed and left (`CloseStep`) and `stepping` is held, so nobody reads `work` now.
        self.shared.work.with_mut(|work| unsafe { *work = Some(Work { task: erase(task), tasks }) });
        self.shared.next.store(0, Ordering::Relaxed);
        let state = State(self.shared.state.load(Ordering::Relaxed));
        self.shared.state.store(state.next_step().0, Ordering::Release);
        // Pairs with the fence between a worker's store to `parked` and its load of `state`: one of the two sees the other's store.
        fence(Ordering::SeqCst);
        for worker in &self.workers {
            if worker.parked.load(Ordering::Relaxed) {
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

/// Closes the step when dropped and waits for the workers inside, so that even an unwinding caller keeps the closure
/// alive long enough.
struct CloseStep<'a>(&'a Shared);

impl Drop for CloseStep<'_> {
    fn drop(&mut self) {
        let mut state = State(self.0.state.fetch_and(!State::OPEN, Ordering::AcqRel));
        let mut spins = 0;
        while state.inside() != 0 {
            spins += 1;
            if spins < SPINS {
                spin_loop()
            } else {
                thread::yield_now()
            }
            state = State(self.0.state.load(Ordering::Acquire));
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
            // SAFETY: the closure lives until `run` has seen that nobody is inside, which is after this call.
            unsafe { (*work.task)(index) };
        }
    }

    #[expect(unsafe_code, reason = "a closure lent to the workers for one step")]
    fn work_until_stopped(&self, parked: &AtomicBool) {
        self.started.fetch_add(1, Ordering::Release);
        let mut seen = 0;
        while let Some(step) = self.enter_step(seen, parked) {
            seen = step;
            // SAFETY: this worker is inside the step, so `run` has written `work` and won't again before it left.
            if let Some(work) = self.work.with(|work| unsafe { *work }) {
                let outcome =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.take_tasks(work)));
                if outcome.is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for an open step other than `seen` and enters it; `None` when the pool stops.
    fn enter_step(&self, seen: u64, parked: &AtomicBool) -> Option<u64> {
        let mut spins = 0;
        loop {
            if self.stop.load(Ordering::Acquire) {
                return None;
            }
            let state = State(self.state.load(Ordering::Acquire));
            if state.is_open() && state.step() != seen {
                let entered = (state.0, state.0 + 1);
                if self
                    .state
                    .compare_exchange(entered.0, entered.1, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
                {
                    return Some(state.step());
                }
                continue;
            }
            spins += 1;
            if spins < SPINS {
                spin_loop();
                continue;
            }
            parked.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            while State(self.state.load(Ordering::Acquire)) == state && !self.stop.load(Ordering::Acquire) {
                thread::park();
            }
            parked.store(false, Ordering::Relaxed);
            spins = 0;
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
        // No fence: every worker is woken, and what precedes `unpark` is visible to the one that it wakes.
        self.shared.stop.store(true, Ordering::Release);
        for worker in &mut self.workers {
            worker.thread.unpark();
            if let Some(handle) = worker.handle.take() {
                // A worker catches its tasks' panics, so joining cannot fail in a way that matters here.
                let _ = handle.join();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
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
