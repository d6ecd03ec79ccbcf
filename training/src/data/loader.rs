//! Threads that make batches ahead of the reader.
//!
//! A job is one view. The thread that makes the last view of a batch also puts the batch together. Errors and panics of a thread become
//! the result of the batch that it worked on.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::batch_maker::{BatchMaker, UnmixedView, ViewJob, panic_text};
use super::order::Order;
use super::{Batch, DataError, Dataset, LoaderPlan, Unreadable};
use crate::views::{Renderer, ViewConfig};

/// An endless stream of batches, made ahead by threads. They end when it is dropped.
///
/// The stream is epoch after epoch, each a random order of all samples; a batch may span two epochs.
/// In epoch `e` a sample is shown by its view number `e`.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    maker: BatchMaker,
    state: Mutex<State>,
    /// Signals a new job or the end.
    work: Condvar,
    /// A batch is ready.
    ready: Condvar,
}

struct State {
    order: Order,
    /// Step that the reader takes next.
    wanted: u64,
    /// Step and slot of the next job.
    next: (u64, usize),
    batches: BTreeMap<u64, BatchState>,
    stop: bool,
}

/// State of a batch. A batch that is being assembled is absent.
enum BatchState {
    Making { made: Vec<Option<UnmixedView>>, left: usize },
    Ready(Result<Batch, DataError>),
}

impl Loader {
    /// Starts the threads; the first batch is that of `start_step`.
    ///
    /// # Errors
    /// Invalid views or plan, or threads that the system refuses.
    pub fn new(
        dataset: Arc<Dataset>,
        views: ViewConfig,
        plan: LoaderPlan,
        start_step: u64,
    ) -> Result<Self, DataError> {
        views.check()?;
        plan.check(start_step)?;
        let state = State {
            order: Order::new(plan.seed, dataset.len() as u32),
            wanted: start_step,
            next: (start_step, 0),
            batches: BTreeMap::new(),
            stop: false,
        };
        let maker = BatchMaker { dataset, views, plan, unreadable: Mutex::default() };
        let shared = Shared { maker, state: Mutex::new(state), work: Condvar::new(), ready: Condvar::new() };
        let mut loader = Self { shared: Arc::new(shared), threads: Vec::new() };
        for worker in 0..plan.workers {
            let shared = Arc::clone(&loader.shared);
            let builder = thread::Builder::new().name(format!("loader-{worker}"));
            // Dropping the loader here ends the threads started so far.
            loader.threads.push(builder.spawn(move || shared.work()).map_err(|error| DataError::Plan {
                what: "workers",
                expected: format!("{} threads", plan.workers),
                got: format!("{worker} ({error})"),
            })?);
        }
        Ok(loader)
    }

    /// Waits for the next batch.
    ///
    /// # Errors
    /// Too many unreadable samples in a row, or an object store out of reach. The next call returns
    /// the batch after it.
    #[expect(clippy::should_implement_trait, reason = "the stream never ends, and may fail")]
    pub fn next(&mut self) -> Result<Batch, DataError> {
        let mut state = self.shared.lock();
        loop {
            let step = state.wanted;
            if let Some(BatchState::Ready(_)) = state.batches.get(&step)
                && let Some(BatchState::Ready(batch)) = state.batches.remove(&step)
            {
                state.wanted += 1;
                self.shared.work.notify_all();
                return batch;
            }
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Samples that could not be read so far, by their order in the dataset. Those of batches ahead are among them.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        let maker = &self.shared.maker;
        let unreadable = maker.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |sample: u32| maker.dataset.name(sample as usize).to_string();
        unreadable
            .iter()
            .map(|(&sample, reason)| Unreadable { name: name(sample), reason: reason.clone() })
            .collect()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // Panics were already returned as results of batches.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of a thread, until the loader is dropped.
    fn work(&self) {
        let mut renderer = Renderer::default();
        while let Some(job) = self.take_job() {
            let made = catch_unwind(AssertUnwindSafe(|| self.maker.make(job, &mut renderer)));
            let made = made.unwrap_or_else(|panic| Err(DataError::Panicked(panic_text(&*panic))));
            if let Some(views) = self.put(job, made) {
                let batch = catch_unwind(AssertUnwindSafe(|| self.maker.assemble(job.step, &views)));
                let batch = batch.map_err(|panic| DataError::Panicked(panic_text(&*panic)));
                self.finish(job.step, batch);
            }
        }
    }

    /// The next job within the batches that may be held; `None` at the end.
    fn take_job(&self) -> Option<ViewJob> {
        let plan = &self.maker.plan;
        let mut state = self.lock();
        while !state.stop && state.next.0 >= state.wanted + plan.ahead as u64 {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop {
            return None;
        }
        let (step, slot) = state.next;
        if slot == 0 {
            let made = std::iter::repeat_with(|| None).take(plan.batch).collect();
            state.batches.insert(step, BatchState::Making { made, left: plan.batch });
        }
        state.next = if slot + 1 == plan.batch { (step + 1, 0) } else { (step, slot + 1) };
        let position = (step * plan.world as u64 + plan.rank as u64) * plan.batch as u64 + slot as u64;
        let (sample, epoch) = state.order.at(position);
        Some(ViewJob { step, slot, position, sample, epoch })
    }

    /// Puts a view into its batch; returns all views when it was the last.
    fn put(&self, job: ViewJob, view: Result<UnmixedView, DataError>) -> Option<Vec<UnmixedView>> {
        let mut state = self.lock();
        match (state.batches.get_mut(&job.step), view) {
            (Some(BatchState::Making { made, left }), Ok(view)) => {
                made[job.slot] = Some(view);
                *left -= 1;
                if *left > 0 {
                    return None;
                }
            }
            (Some(stage @ BatchState::Making { .. }), Err(error)) => {
                *stage = BatchState::Ready(Err(error));
                self.ready.notify_all();
                return None;
            }
            // Another view of this batch has failed.
            _ => return None,
        }
        match state.batches.remove(&job.step) {
            Some(BatchState::Making { made, .. }) => made.into_iter().collect(),
            _ => None,
        }
    }

    fn finish(&self, step: u64, batch: Result<Batch, DataError>) {
        self.lock().batches.insert(step, BatchState::Ready(batch));
        self.ready.notify_all();
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
