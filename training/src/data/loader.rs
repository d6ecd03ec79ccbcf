use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::make::{Job, Made, Maker, panic_text};
use super::order::Order;
use super::{DataError, Dataset};
use crate::views::{Renderer, ViewConfig};

/// Most views of one batch of one rank.
const MAX_BATCH: usize = 1 << 16;
/// Most ranks.
const MAX_WORLD: usize = 1 << 16;
/// Most threads.
const MAX_WORKERS: usize = 1_024;
/// Most batches ahead.
const MAX_AHEAD: usize = 1_024;
/// Largest step: with the other limits, positions in the stream fit u64.
const MAX_STEP: u64 = 1 << 31;

/// How a run loads its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderPlan {
    /// Where all that is random comes from.
    pub seed: u64,
    /// Views per batch of this rank.
    pub batch: usize,
    /// Which of the processes this is; below `world`.
    pub rank: usize,
    /// Processes that train together: of a step's `world * batch` samples each takes its own `batch`.
    pub world: usize,
    /// Threads that decode and render.
    pub workers: usize,
    /// Batches that are held at most, those in the making included.
    pub ahead: usize,
}

/// What one step trains on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of the step, from 0.
    pub step: u64,
    /// Samples shown: `[batch]`. One that could not be read is replaced by another.
    pub samples: Vec<u32>,
    /// What the student sees.
    pub student: Pixels,
    /// What the teacher sees: the same crops, mirrors and mixtures at another side, on which the changes of colour are made
    /// anew. None: the student's pixels.
    pub teacher: Option<Pixels>,
}

/// Square RGB views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Side of each in pixels.
    pub side_px: usize,
    /// `[batch, side_px, side_px, 3]`
    pub data: Vec<u8>,
}

impl Pixels {
    /// The images, `[side_px, side_px, 3]` each.
    pub fn images(&self) -> impl Iterator<Item = &[u8]> {
        self.data.chunks_exact(self.side_px * self.side_px * 3)
    }
}

/// A sample that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its name in the dataset.
    pub name: String,
    /// Why, in words.
    pub reason: String,
}

/// An endless stream of batches, made ahead by threads. They end when it is dropped.
///
/// The stream is epoch after epoch, each a random order of all samples; a batch in which an epoch ends goes on with the next.
/// In epoch `e` a sample is shown by its view number `e`.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    maker: Maker,
    state: Mutex<State>,
    /// A job has become possible, or the end has come.
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
    batches: BTreeMap<u64, Stage>,
    stop: bool,
}

/// How far a batch is. It is absent while it is put together.
enum Stage {
    Making { made: Vec<Option<Made>>, left: usize },
    Ready(Result<Batch, DataError>),
}

impl Loader {
    /// Starts the threads; the first batch is that of `start_step`.
    ///
    /// # Errors
    /// Views or a plan that make no sense, or threads that the system does not give.
    pub fn new(
        dataset: Arc<Dataset>,
        views: ViewConfig,
        plan: LoaderPlan,
        start_step: u64,
    ) -> Result<Self, DataError> {
        views.check()?;
        check(&plan, start_step)?;
        let state = State {
            order: Order::new(plan.seed, dataset.len() as u32),
            wanted: start_step,
            next: (start_step, 0),
            batches: BTreeMap::new(),
            stop: false,
        };
        let maker = Maker { dataset, views, plan, unreadable: Mutex::default() };
        let shared = Shared { maker, state: Mutex::new(state), work: Condvar::new(), ready: Condvar::new() };
        let mut loader = Self { shared: Arc::new(shared), threads: Vec::new() };
        for worker in 0..plan.workers {
            let shared = Arc::clone(&loader.shared);
            let builder = thread::Builder::new().name(format!("loader-{worker}"));
            // A loader that is dropped here ends the threads that it has.
            loader.threads.push(builder.spawn(move || shared.work()).map_err(|error| DataError::Plan {
                what: "workers",
                expected: format!("{} threads", plan.workers),
                got: format!("{worker} ({error})"),
            })?);
        }
        Ok(loader)
    }

    /// The next batch; waits until it is made.
    ///
    /// # Errors
    /// So many samples in a row cannot be read that there is no hope, or an object store is out of reach. The next call gives
    /// the next batch.
    #[expect(clippy::should_implement_trait, reason = "the stream never ends, and may fail")]
    pub fn next(&mut self) -> Result<Batch, DataError> {
        let mut state = self.shared.lock();
        loop {
            let step = state.wanted;
            if let Some(Stage::Ready(_)) = state.batches.get(&step)
                && let Some(Stage::Ready(batch)) = state.batches.remove(&step)
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
            // What a worker panicked of was told as a batch.
            let _ = thread.join();
        }
    }
}

fn check(plan: &LoaderPlan, start_step: u64) -> Result<(), DataError> {
    let within = |what, got: usize, low: usize, high: usize| {
        if (low..=high).contains(&got) {
            return Ok(());
        }
        Err(DataError::Plan { what, expected: format!("{low}..={high}"), got: got.to_string() })
    };
    within("batch", plan.batch, 1, MAX_BATCH)?;
    within("world", plan.world, 1, MAX_WORLD)?;
    within("rank", plan.rank, 0, plan.world - 1)?;
    within("workers", plan.workers, 1, MAX_WORKERS)?;
    within("ahead", plan.ahead, 1, MAX_AHEAD)?;
    if start_step > MAX_STEP {
        let (expected, got) = (format!("0..={MAX_STEP}"), start_step.to_string());
        return Err(DataError::Plan { what: "start step", expected, got });
    }
    Ok(())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does until the loader is dropped.
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

    /// Waits until a job lies within the batches that may be held.
    fn take_job(&self) -> Option<Job> {
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
            state.batches.insert(step, Stage::Making { made, left: plan.batch });
        }
        state.next = if slot + 1 == plan.batch { (step + 1, 0) } else { (step, slot + 1) };
        let position = (step * plan.world as u64 + plan.rank as u64) * plan.batch as u64 + slot as u64;
        let (sample, epoch) = state.order.at(position);
        Some(Job { step, slot, position, sample, epoch })
    }

    /// Lays a view into its batch; returns all of them when it was the last.
    fn put(&self, job: Job, view: Result<Made, DataError>) -> Option<Vec<Made>> {
        let mut state = self.lock();
        match (state.batches.get_mut(&job.step), view) {
            (Some(Stage::Making { made, left }), Ok(view)) => {
                made[job.slot] = Some(view);
                *left -= 1;
                if *left > 0 {
                    return None;
                }
            }
            (Some(stage @ Stage::Making { .. }), Err(error)) => {
                *stage = Stage::Ready(Err(error));
                self.ready.notify_all();
                return None;
            }
            // Another view of this batch has failed.
            _ => return None,
        }
        match state.batches.remove(&job.step) {
            Some(Stage::Making { made, .. }) => made.into_iter().collect(),
            _ => None,
        }
    }

    fn finish(&self, step: u64, batch: Result<Batch, DataError>) {
        self.lock().batches.insert(step, Stage::Ready(batch));
        self.ready.notify_all();
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
