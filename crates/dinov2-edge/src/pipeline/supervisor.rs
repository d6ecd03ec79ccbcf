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
use super::stages::{Beat, Capture, Extract, Feeding, Fitting, ForSink, Heads, Shared};
use super::thermals::thermals;
use super::thinning::Thinning;
use super::{BadInputs, Observation, Pipeline, PipelineError, Summary};

/// How often statistics are made.
const TICK: Duration = Duration::from_secs(1);
/// How long sinks may take to finish what they have when a pipeline ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the supervisor hears.
#[derive(Debug)]
pub(crate) enum Event {
    Stop,
    Ended(Stage, Result<(), PipelineError>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Capture,
    Fit,
    Extract,
    Heads,
    Sink(&'static str),
}

impl Stage {
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

/// The thread that called, and what it holds of the others.
struct Supervisor {
    shared: Arc<Shared>,
    handles: Vec<LiveHandle>,
    beats: Vec<Arc<Beat>>,
    fitted: Arc<Mailbox<Pooled>>,
    featured: Arc<Mailbox<Pooled>>,
    sinks: Vec<Arc<Mailbox<ForSink>>>,
    /// Place for statistics in the sinks' mailboxes.
    stats_place: usize,
    /// Stages behind the engine that have not ended.
    open: usize,
    watchdog: Option<Duration>,
    /// Sources are live.
    live: bool,
    /// How a source of files failed, whose earlier frames are still on their way.
    failed: Option<PipelineError>,
    /// Inputs that could not be used, as far as they were observed.
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
        let mut beats = vec![Arc::new(Beat::new(Stage::Extract.name()))];
        let mut fed = Vec::new();
        let open = sinks.len() + 1;
        // From the end to the beginning, so that nothing is lost before there is someone to take it.
        for sink in sinks {
            let mailbox = Arc::new(Mailbox::new(cameras + 1, when_full));
            let (name, beat) = (sink.name(), Arc::new(Beat::new(sink.name())));
            fed.push((sink.wants(), mailbox.clone()));
            beats.push(beat.clone());
            let feeding = Feeding { sink, shared: shared.clone(), beat, mailbox };
            spawn(Stage::Sink(name), &sender, feeding, Feeding::run)?;
        }
        let sinks = fed.iter().map(|(_, mailbox)| mailbox.clone()).collect();
        let taps =
            config.taps.iter().chain(heads.iter().flat_map(|named| named.head.taps().as_slice().to_vec()));
        let taps = Taps::new(taps);
        let heads = Heads {
            heads,
            commands: config.commands,
            shared: shared.clone(),
            featured: featured.clone(),
            sinks: fed,
        };
        spawn(Stage::Heads, &sender, heads, Heads::run)?;
        let patch_size = engine.spec().patch_size;
        let extract = Extract {
            engine,
            taps,
            most_frames: config.frames.map(u64::from),
            period: config.period,
            shared: shared.clone(),
            beat: beats[0].clone(),
            fitted: fitted.clone(),
            featured: featured.clone(),
        };
        spawn(Stage::Extract, &sender, extract, Extract::run)?;
        for (camera, source) in sources.into_iter().enumerate() {
            let captured = Arc::new(Mailbox::new(1, when_full));
            let fit = Fit::new(config.size, patch_size)?;
            let (shared_by_fit, fitted, from) = (shared.clone(), fitted.clone(), captured.clone());
            let fitting = Fitting { camera, fit, bad_inputs, shared: shared_by_fit, captured: from, fitted };
            spawn(Stage::Fit, &sender, fitting, Fitting::run)?;
            let prefix = (cameras > 1).then(|| format!("camera{camera}_"));
            let (thinning, shared) = (Thinning::new(config.period), shared.clone());
            let capture = Capture { camera, source, thinning, prefix, bad_inputs, shared, captured };
            spawn(Stage::Capture, &sender, capture, Capture::run)?;
        }
        let (stats_place, watchdog) = (cameras, config.watchdog);
        let failed = None;
        Ok(Self {
            shared,
            handles,
            beats,
            fitted,
            featured,
            sinks,
            stats_place,
            open,
            watchdog,
            live,
            failed,
            skipped: 0,
            events,
        })
    }

    /// Waits for the end. True if it was asked for.
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
                Ok(Event::Ended(stage, outcome)) => self.ended(stage, outcome)?,
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

    fn ended(&mut self, stage: Stage, outcome: Result<(), PipelineError>) -> Result<(), PipelineError> {
        self.count_end(stage);
        let before_engine = matches!(stage, Stage::Capture | Stage::Fit);
        match outcome {
            Err(error) if before_engine && !self.live => {
                self.failed.get_or_insert(error);
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn count_end(&mut self, stage: Stage) {
        match stage {
            Stage::Heads | Stage::Sink(_) => self.open -= 1,
            // No features will be made of further frames.
            Stage::Extract => self.handles.iter().for_each(|handle| handle.stop_signal().stop()),
            Stage::Capture | Stage::Fit => {}
        }
    }

    fn tick(&mut self, observe: &mut dyn FnMut(Observation<'_>)) -> Result<(), PipelineError> {
        let stats = self.stats();
        let sent = Arc::new(stats.clone());
        for sink in &self.sinks {
            sink.replace(self.stats_place, ForSink::Stats(sent.clone()));
        }
        self.observe(&stats, observe);
        let Some(most) = self.watchdog else { return Ok(()) };
        match self.beats.iter().find(|beat| beat.busy_for() > most) {
            None => Ok(()),
            Some(beat) => Err(PipelineError::Stuck { stage: beat.stage, seconds: most.as_secs() }),
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

    /// Tells every stage that it is time. Frames without features are let go.
    fn stop(&self) {
        self.shared.stop.stop();
        self.handles.iter().for_each(|handle| handle.stop_signal().stop());
        self.fitted.refuse();
        self.featured.close_all();
    }

    /// Waits until heads and sinks have ended.
    fn drain(&mut self) -> Result<(), PipelineError> {
        let deadline = Instant::now() + PATIENCE;
        let mut outcome = Ok(());
        while self.open > 0 {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Ended(stage, ended)) => {
                    self.count_end(stage);
                    if matches!(stage, Stage::Heads | Stage::Sink(_)) {
                        outcome = outcome.and(ended);
                    }
                }
                Ok(Event::Stop) => {}
                Err(_) => {
                    let busy = self.beats.iter().max_by_key(|beat| beat.busy_for());
                    let stage = busy.map_or(Stage::Heads.name(), |beat| beat.stage);
                    return outcome.and(Err(PipelineError::Stuck { stage, seconds: PATIENCE.as_secs() }));
                }
            }
        }
        outcome
    }
}

/// Starts a thread that tells the supervisor how it ended. The supervisor waits for heads and sinks, so these have let go of
/// everything by then. It does not wait for the stages before them: it must hear how they failed before their mailboxes close, or
/// it would take what follows, the end of everybody else, for a good one.
fn spawn<W: Send + 'static>(
    stage: Stage,
    events: &Sender<Event>,
    mut worker: W,
    run: fn(&mut W) -> Result<(), PipelineError>,
) -> Result<(), PipelineError> {
    let events = events.clone();
    let body = move || {
        // After a panic the worker is dropped, not used again.
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut worker)));
        let outcome = outcome.unwrap_or(Err(PipelineError::Panicked { stage: stage.name() }));
        let is_awaited = matches!(stage, Stage::Heads | Stage::Sink(_));
        let kept = Some(worker).filter(|_| !is_awaited);
        // Nobody listens once the pipeline has returned.
        let _ = events.send(Event::Ended(stage, outcome));
        drop(kept);
    };
    thread::Builder::new().name(stage.name().into()).spawn(body)?;
    Ok(())
}
