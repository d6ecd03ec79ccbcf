//! The calling thread of a pipeline: starts the workers, gathers statistics and notes once a second, watches for workers that hang,
//! and ends the pipeline.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dinov2_core::Taps;
use dinov2_io::{Fit, LiveHandle, LiveStats, Losses, StopSignal};

use super::feature_frame::{Pool, Pooled};
use super::mailbox::{Mailbox, WhenFull};
use super::metrics::Metrics;
use super::thermals::thermals;
use super::thinning::Thinning;
use super::workers::{
    BusyTimer, CaptureWorker, EngineWorker, FitWorker, HeadsWorker, Shared, SinkMessage, SinkWorker,
};
use super::{BadInputs, Observation, Pipeline, PipelineError, Summary};

/// Time between two observations.
const TICK: Duration = Duration::from_secs(1);
/// Time that heads and sinks have to finish when a pipeline ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A message to the supervisor.
#[derive(Debug)]
pub(crate) enum Event {
    Stop,
    Ended(Worker, Result<(), PipelineError>),
}

/// A kind of worker thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worker {
    Capture,
    Fit,
    Extract,
    Heads,
    Sink(&'static str),
}

impl Worker {
    fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Fit => "fit",
            Self::Extract => "engine",
            Self::Heads => "heads",
            Self::Sink(name) => name,
        }
    }
}

/// The state of the supervising thread.
struct Supervisor {
    shared: Arc<Shared>,
    handles: Vec<LiveHandle>,
    busy_timers: Vec<Arc<BusyTimer>>,
    fitted: Arc<Mailbox<Pooled>>,
    featured: Arc<Mailbox<Pooled>>,
    sinks: Vec<Arc<Mailbox<SinkMessage>>>,
    /// Slot of the statistics in the sinks' mailboxes.
    stats_slot: usize,
    /// Workers after the engine (heads and sinks) that have not ended.
    open: usize,
    watchdog: Option<Duration>,
    /// All sources are live.
    live: bool,
    /// First failure of a source of files; reported after its earlier frames are written.
    failed: Option<PipelineError>,
    /// Inputs that could not be used, as reported so far.
    skipped: u64,
    events: Receiver<Event>,
}

pub(super) fn run(
    pipeline: Pipeline,
    observe: &mut dyn FnMut(Observation<'_>),
) -> Result<Summary, PipelineError> {
    let duration = pipeline.config.duration;
    let mut supervisor = Supervisor::start(pipeline)?;
    let ended = supervisor.watch(duration, observe);
    supervisor.stop();
    let drained = supervisor.drain();
    let failed = supervisor.failed.take().map_or(Ok(()), Err);
    let stats = supervisor.stats();
    supervisor.observe(&stats, observe);
    let stopped = ended?;
    failed.and(drained)?;
    Ok(Summary { stats, skipped: supervisor.skipped, stopped })
}

impl Supervisor {
    /// Starts all threads.
    fn start(pipeline: Pipeline) -> Result<Self, PipelineError> {
        let Pipeline { sources, engine, heads, sinks, config, events: (sender, events) } = pipeline;
        let cameras = sources.len();
        let handles: Vec<LiveHandle> = sources.iter().filter_map(|source| source.live()).collect();
        let live = handles.len() == cameras;
        let bad_inputs = if live { BadInputs::Stop } else { config.bad_inputs };
        let when_full = if live { WhenFull::Replace } else { WhenFull::Wait };
        let shared = Arc::new(Shared {
            metrics: Metrics::new(),
            notes: Default::default(),
            skipped: Default::default(),
            stop: StopSignal::default(),
            pool: Pool::default(),
            pausing: Default::default(),
        });
        let fitted = Arc::new(Mailbox::new(cameras, when_full));
        let featured = Arc::new(Mailbox::new(cameras, when_full));
        let mut busy_timers = vec![Arc::new(BusyTimer::new(Worker::Extract.name()))];
        let mut fed = Vec::new();
        let open = sinks.len() + 1;
        // From sinks to sources, so that every frame has a reader.
        for sink in sinks {
            let mailbox = Arc::new(Mailbox::new(cameras + 1, when_full));
            let (name, busy) = (sink.name(), Arc::new(BusyTimer::new(sink.name())));
            fed.push((sink.wants(), mailbox.clone()));
            busy_timers.push(busy.clone());
            let worker = SinkWorker { sink, shared: shared.clone(), busy, mailbox };
            spawn(Worker::Sink(name), &sender, worker, SinkWorker::run)?;
        }
        let sinks = fed.iter().map(|(_, mailbox)| mailbox.clone()).collect();
        let taps =
            config.taps.iter().chain(heads.iter().flat_map(|named| named.head.taps().as_slice().to_vec()));
        let taps = Taps::new(taps);
        let heads = HeadsWorker {
            heads,
            commands: config.commands,
            shared: shared.clone(),
            featured: featured.clone(),
            sinks: fed,
        };
        spawn(Worker::Heads, &sender, heads, HeadsWorker::run)?;
        let patch_size = engine.spec().patch_size;
        let extract = EngineWorker {
            engine,
            taps,
            most_frames: config.frames.map(u64::from),
            period: config.period,
            shared: shared.clone(),
            busy: busy_timers[0].clone(),
            fitted: fitted.clone(),
            featured: featured.clone(),
        };
        spawn(Worker::Extract, &sender, extract, EngineWorker::run)?;
        for (camera, source) in sources.into_iter().enumerate() {
            let captured = Arc::new(Mailbox::new(1, when_full));
            let fit = Fit::new(config.size, patch_size)?;
            let (shared_by_fit, fitted, from) = (shared.clone(), fitted.clone(), captured.clone());
            let fitting =
                FitWorker { camera, fit, bad_inputs, shared: shared_by_fit, captured: from, fitted };
            spawn(Worker::Fit, &sender, fitting, FitWorker::run)?;
            let prefix = (cameras > 1).then(|| format!("camera{camera}_"));
            let (thinning, shared) = (Thinning::new(config.period), shared.clone());
            let capture = CaptureWorker { camera, source, thinning, prefix, bad_inputs, shared, captured };
            spawn(Worker::Capture, &sender, capture, CaptureWorker::run)?;
        }
        let (stats_slot, watchdog) = (cameras, config.watchdog);
        let failed = None;
        Ok(Self {
            shared,
            handles,
            busy_timers,
            fitted,
            featured,
            sinks,
            stats_slot,
            open,
            watchdog,
            live,
            failed,
            skipped: 0,
            events,
        })
    }

    /// Waits for the end. True if [`super::PipelineStop::stop`] caused it.
    fn watch(
        &mut self,
        duration: Option<Duration>,
        observe: &mut dyn FnMut(Observation<'_>),
    ) -> Result<bool, PipelineError> {
        let start = Instant::now();
        let deadline = duration.map(|duration| start + duration);
        let mut next_tick = start + TICK;
        while self.open > 0 {
            let until = deadline.map_or(next_tick, |deadline| deadline.min(next_tick));
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Stop) => return Ok(true),
                Ok(Event::Ended(worker, outcome)) => self.ended(worker, outcome)?,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            if Instant::now() >= next_tick {
                next_tick += TICK;
                self.tick(observe)?;
            }
        }
        Ok(false)
    }

    fn ended(&mut self, worker: Worker, outcome: Result<(), PipelineError>) -> Result<(), PipelineError> {
        self.count_end(worker);
        let before_engine = matches!(worker, Worker::Capture | Worker::Fit);
        match outcome {
            Err(error) if before_engine && !self.live => {
                self.failed.get_or_insert(error);
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn count_end(&mut self, worker: Worker) {
        match worker {
            Worker::Heads | Worker::Sink(_) => self.open -= 1,
            // Without an engine, further frames are useless.
            Worker::Extract => self.handles.iter().for_each(|handle| handle.stop_signal().stop()),
            Worker::Capture | Worker::Fit => {}
        }
    }

    fn tick(&mut self, observe: &mut dyn FnMut(Observation<'_>)) -> Result<(), PipelineError> {
        let stats = self.stats();
        let sent = Arc::new(stats.clone());
        for sink in &self.sinks {
            sink.replace(self.stats_slot, SinkMessage::Stats(sent.clone()));
        }
        self.observe(&stats, observe);
        let Some(most) = self.watchdog else { return Ok(()) };
        match self.busy_timers.iter().find(|busy| busy.busy_for() > most) {
            None => Ok(()),
            Some(busy) => Err(PipelineError::Stuck { worker: busy.worker, seconds: most.as_secs() }),
        }
    }

    fn stats(&self) -> LiveStats {
        let losses = self.handles.iter().map(LiveHandle::losses).fold(Losses::default(), |sum, one| Losses {
            stale: sum.stale + one.stale,
            missed: sum.missed + one.missed,
            corrupt: sum.corrupt + one.corrupt,
            reopened: sum.reopened + one.reopened,
        });
        self.shared.metrics.stats(losses, thermals())
    }

    fn observe(&mut self, stats: &LiveStats, observe: &mut dyn FnMut(Observation<'_>)) {
        let skipped = &mut *self.shared.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = std::mem::take(skipped);
        self.skipped += skipped.len() as u64;
        observe(Observation { stats, notes: self.notes(), skipped });
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.handles.iter().flat_map(LiveHandle::take_notes).collect();
        notes.append(&mut self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner));
        notes
    }

    /// Stops all workers. Frames without features are dropped.
    fn stop(&self) {
        self.shared.stop.stop();
        self.handles.iter().for_each(|handle| handle.stop_signal().stop());
        self.fitted.refuse();
        self.featured.close_all();
    }

    /// Waits until heads and sinks have ended.
    fn drain(&mut self) -> Result<(), PipelineError> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        let mut outcome = Ok(());
        while self.open > 0 {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Ended(worker, ended)) => {
                    self.count_end(worker);
                    if matches!(worker, Worker::Heads | Worker::Sink(_)) {
                        outcome = outcome.and(ended);
                    }
                }
                Ok(Event::Stop) => {}
                Err(_) => {
                    let busy = self.busy_timers.iter().max_by_key(|busy| busy.busy_for());
                    let worker = busy.map_or(Worker::Heads.name(), |busy| busy.worker);
                    return outcome
                        .and(Err(PipelineError::Stuck { worker, seconds: DRAIN_TIMEOUT.as_secs() }));
                }
            }
        }
        outcome
    }
}

/// Starts a worker thread that reports its outcome to the supervisor. Heads and sinks are dropped before the report, because the
/// supervisor returns after it. The others are dropped, and their mailboxes closed, after the report: otherwise the supervisor could
/// see the regular end of the later workers before the failure that caused it.
fn spawn<W: Send + 'static>(
    worker: Worker,
    events: &Sender<Event>,
    mut task: W,
    run: fn(&mut W) -> Result<(), PipelineError>,
) -> Result<(), PipelineError> {
    let events = events.clone();
    let body = move || {
        // Unwind safe: after a panic the task is only dropped.
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut task)));
        let outcome = outcome.unwrap_or(Err(PipelineError::Panicked { worker: worker.name() }));
        let is_awaited = matches!(worker, Worker::Heads | Worker::Sink(_));
        let kept = Some(task).filter(|_| !is_awaited);
        // Fails only after the pipeline has returned.
        let _ = events.send(Event::Ended(worker, outcome));
        drop(kept);
    };
    thread::Builder::new().name(worker.name().into()).spawn(body)?;
    Ok(())
}
