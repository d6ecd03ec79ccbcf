//! The pool under the model checker loom: every order of two threads' accesses within a bound of preemptions, with what weak memory
//! lets them read. `cargo xtask loom` runs these tests.
//!
//! Loom fails a test where two accesses to a cell are not ordered (a task's result, `Shared::work`) and where every thread waits for
//! another (a wake-up that is lost). Not modelled: panicking tasks, and pools of more than two threads.

use core::num::NonZeroUsize;

use super::Pool;
use super::sync::{Arc, UnsafeCell, thread};

/// Runs `body` in every order that has at most so many preemptions.
fn in_every_order(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(body);
}

fn two_threads() -> Pool {
    Pool::new(NonZeroUsize::new(2).unwrap())
}

/// A place that one task writes and the caller reads after the step, without any synchronisation of its own.
struct Place(UnsafeCell<usize>);

// SAFETY: loom checks every access; one that is not ordered with another fails the test before it can do harm.
#[expect(unsafe_code, reason = "what is to be checked is whether the pool orders these accesses")]
unsafe impl Sync for Place {}

#[expect(unsafe_code, reason = "what is to be checked is whether the pool orders these accesses")]
impl Place {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn add(&self, more: usize) {
        // SAFETY: loom fails the test if another access is not ordered with this one.
        self.0.with_mut(|place| unsafe { *place += more });
    }

    fn get(&self) -> usize {
        // SAFETY: loom fails the test if a write is not ordered with this read.
        self.0.with(|place| unsafe { *place })
    }
}

/// A step of as many tasks as there are places; each adds `more` to its own. Returns what the places then hold.
fn step<const TASKS: usize>(pool: &Pool, places: &[Place; TASKS], more: usize) -> [usize; TASKS] {
    pool.run(TASKS, &|task| places[task].add(more));
    core::array::from_fn(|task| places[task].get())
}

#[test]
fn loom_one_step_runs_each_task_once_and_shows_its_writes() {
    in_every_order(3, || {
        let pool = two_threads();
        assert_eq!(step(&pool, &core::array::from_fn(|_| Place::new()), 1), [1, 1, 1]);
    });
}

/// The worker may sleep, fall asleep or be on its way out of the first step when the second is opened.
#[test]
fn loom_a_second_step_wakes_the_worker_and_sees_the_first() {
    in_every_order(2, || {
        let pool = two_threads();
        let places = core::array::from_fn(|_| Place::new());
        assert_eq!(step(&pool, &places, 1), [1, 1]);
        assert_eq!(step(&pool, &places, 2), [3, 3]);
    });
}

/// A caller works alone where the worker is asleep, so only what the worker itself has to do shows whether it wakes: here the
/// first task waits for the second, which the worker has to take.
#[test]
fn loom_a_parked_worker_wakes_up() {
    in_every_order(2, || {
        let pool = two_threads();
        let ran = loom::sync::atomic::AtomicUsize::new(0);
        pool.run(2, &|_| {
            ran.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            while ran.load(core::sync::atomic::Ordering::Relaxed) < 2 {
                thread::yield_now();
            }
        });
    });
}

/// Steps of two callers exclude each other.
#[test]
fn loom_two_callers_take_turns() {
    in_every_order(2, || {
        let pool = Arc::new(two_threads());
        let other = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || step(&pool, &[Place::new(), Place::new()], 1))
        };
        assert_eq!(step(&pool, &[Place::new(), Place::new()], 2), [2, 2]);
        assert_eq!(other.join().unwrap(), [1, 1]);
    });
}
