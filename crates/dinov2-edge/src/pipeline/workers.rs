//! The worker threads of a pipeline. Each reads one mailbox and writes the next. When a worker is dropped, at its end or by a panic,
//! it refuses its input and closes its output, so that an end propagates in both directions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dinov2_core::{Engine, Features, Taps};
use dinov2_files::chain;
use dinov2_files::shown;
use dinov2_heads::HeadInput;
use dinov2_io::{Fit, FitError, LiveStats, Source, StopSignal};

use super::feature_frame::{FeatureFrame, Pool, Pooled};
use super::heads::{HeadCommands, NamedHead, Wants};
use super::mailbox::{Mailbox, Put};
use super::metrics::{Dropped, Metrics};
use super::sink::Sink;
use super::thinning::Thinning;
use super::{BadInputs, PipelineError};

/// The state that all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) metrics: Metrics,
    pub(crate) notes: Mutex<Vec<String>>,
    pub(crate) skipped: Mutex<Vec<PipelineError>>,
    pub(crate) stop: StopSignal,
    pub(crate) pool: Pool,
    /// The engine sleeps because of the rate limit.
    pub(crate) pausing: AtomicBool,
}

impl Shared {
    pub(crate) fn note(&self, notes: Vec<String>) {
        if !notes.is_empty() {
            self.notes.lock().unwrap_or_else(PoisonError::into_inner).extend(notes);
        }
    }

    fn skip(&self, error: PipelineError) {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(error);
    }

    /// Passes a frame towards the engine. False if the reader has ended.
    fn put_before_engine(&self, mailbox: &Mailbox<Pooled>, slot: usize, frame: Pooled) -> bool {
        match mailbox.put(slot, frame) {
            Put::Stored => true,
            Put::Replaced(_) => {
                let pausing = self.pausing.load(Ordering::Relaxed);
                self.metrics.dropped(if pausing { Dropped::RateLimit } else { Dropped::EngineBusy });
                true
            }
            Put::Refused(_) => false,
        }
    }

    /// Passes a value towards the sinks. False if the reader has ended.
    fn put_after_engine<T>(&self, mailbox: &Mailbox<T>, slot: usize, value: T) -> bool {
        match mailbox.put(slot, value) {
            Put::Stored => true,
            Put::Replaced(_) => {
                self.metrics.dropped(Dropped::SinkBusy);
                true
            }
            Put::Refused(_) => false,
        }
    }
}

/// Measures how long a worker has been busy with its current frame; read by the watchdog.
#[derive(Debug)]
pub(crate) struct BusyTimer {
    pub(crate) worker: &'static str,
    since: Mutex<Option<Instant>>,
}

impl BusyTimer {
    pub(crate) fn new(worker: &'static str) -> Self {
        Self { worker, since: Mutex::new(None) }
    }

    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set(Some(Instant::now()));
        let result = work();
        self.set(None);
        result
    }

    fn set(&self, since: Option<Instant>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    pub(crate) fn busy_for(&self) -> Duration {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Reads one source: capture and decoding.
pub(crate) struct CaptureWorker {
    pub(crate) camera: usize,
    pub(crate) source: Box<dyn Source>,
    pub(crate) thinning: Thinning,
    /// Prefix of frame names, which need not be unique across sources.
    pub(crate) prefix: Option<String>,
    pub(crate) bad_inputs: BadInputs,
    pub(crate) shared: Arc<Shared>,
    pub(crate) captured: Arc<Mailbox<Pooled>>,
}

impl CaptureWorker {
    pub(crate) fn run(&mut self) -> Result<(), PipelineError> {
        while !self.shared.stop.is_stopped() {
            let mut frame = self.shared.pool.take();
            let asked = Instant::now();
            match self.source.next_frame(&mut frame.frame) {
                Ok(true) => {}
                Ok(false) => break,
                // The source continues with its next input.
                Err(error) if self.bad_inputs == BadInputs::Skip => {
                    self.shared.skip(error.into());
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            if let Some(prefix) = &self.prefix {
                frame.frame.name.insert_str(0, prefix);
            }
            if !self.thinning.keeps(&frame.frame) {
                continue;
            }
            let began = frame.frame.captured.unwrap_or(asked);
            frame.camera = self.camera;
            frame.times.began = Some(began);
            frame.times.read = began.elapsed();
            self.shared.note(self.source.take_notes());
            if !self.shared.put_before_engine(&self.captured, 0, frame) {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for CaptureWorker {
    fn drop(&mut self) {
        self.shared.note(self.source.take_notes());
        self.captured.close_all();
    }
}

/// Resizes or crops the frames of one source to the patch grid.
pub(crate) struct FitWorker {
    pub(crate) camera: usize,
    pub(crate) fit: Fit,
    pub(crate) bad_inputs: BadInputs,
    pub(crate) shared: Arc<Shared>,
    pub(crate) captured: Arc<Mailbox<Pooled>>,
    pub(crate) fitted: Arc<Mailbox<Pooled>>,
}

impl FitWorker {
    pub(crate) fn run(&mut self) -> Result<(), PipelineError> {
        let mut taken = Vec::new();
        // A video whose frames do not fit is reported once.
        let mut unfit = None;
        while self.captured.take_all(&mut taken) {
            for mut frame in taken.drain(..) {
                let start = Instant::now();
                if let Err(reason) = self.fit(&mut frame) {
                    let path = frame.frame.path.as_deref().map(shown);
                    let path = path.unwrap_or_else(|| frame.frame.name.clone());
                    let is_known = unfit.replace(path.clone()).is_some_and(|before| before == path);
                    let error = PipelineError::Unfit { reason, path };
                    match self.bad_inputs {
                        BadInputs::Stop => return Err(error),
                        BadInputs::Skip if is_known => {}
                        BadInputs::Skip => self.shared.skip(error),
                    }
                    continue;
                }
                frame.times.fit = start.elapsed();
                if !self.shared.put_before_engine(&self.fitted, self.camera, frame) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl FitWorker {
    fn fit(&mut self, frame: &mut FeatureFrame) -> Result<(), FitError> {
        let FeatureFrame { frame: captured, fitted, fitted_px, .. } = frame;
        *fitted_px = self.fit.fit_into(captured.view(), fitted)?;
        frame.crop = self.fit.crop(frame.frame.width_px, frame.frame.height_px)?;
        Ok(())
    }
}

impl Drop for FitWorker {
    fn drop(&mut self) {
        self.captured.refuse();
        self.fitted.close(self.camera);
    }
}

/// Runs the engine on the new frames of all cameras, as one batch.
pub(crate) struct EngineWorker {
    pub(crate) engine: Box<dyn Engine + Send>,
    pub(crate) taps: Taps,
    pub(crate) most_frames: Option<u64>,
    pub(crate) period: Option<Duration>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) busy: Arc<BusyTimer>,
    pub(crate) fitted: Arc<Mailbox<Pooled>>,
    pub(crate) featured: Arc<Mailbox<Pooled>>,
}

impl EngineWorker {
    pub(crate) fn run(&mut self) -> Result<(), PipelineError> {
        let mut frames: Vec<Pooled> = Vec::new();
        let mut due = Instant::now();
        while self.left() > 0 && self.pause_until(due) && self.fitted.take_all(&mut frames) {
            if !frames.iter().all(|frame| Thinning::applies_to(&frame.frame)) {
                due = self.period.map_or(due, |period| (due + period).max(Instant::now()));
            }
            frames.truncate(self.left());
            self.extract(&mut frames)?;
            self.shared.note(self.engine.take_notes());
            for frame in frames.drain(..) {
                let slot = frame.camera;
                if self.shared.stop.is_stopped() || !self.shared.put_after_engine(&self.featured, slot, frame)
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Frames until the limit.
    fn left(&self) -> usize {
        let left = self.most_frames.map(|most| most.saturating_sub(self.shared.metrics.frames()));
        left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX)
    }

    fn pause_until(&self, due: Instant) -> bool {
        self.shared.pausing.store(self.period.is_some(), Ordering::Relaxed);
        let goes_on = self.shared.stop.sleep_until(due);
        self.shared.pausing.store(false, Ordering::Relaxed);
        goes_on
    }

    fn extract(&mut self, frames: &mut [Pooled]) -> Result<(), PipelineError> {
        let start = Instant::now();
        let mut features: Vec<Features> =
            frames.iter_mut().map(|frame| std::mem::take(&mut frame.features)).collect();
        let Self { engine, taps, busy, .. } = self;
        let outcome = busy.during(|| match (&*frames, &mut features[..]) {
            ([frame], [features]) => engine.extract(frame.image(), taps, features),
            (frames, features) => {
                let images: Vec<_> = frames.iter().map(|frame| frame.image()).collect();
                engine.extract_batch(&images, taps, features)
            }
        });
        let done = Instant::now();
        for (frame, features) in frames.iter_mut().zip(features) {
            frame.features = features;
            frame.times.extract = done - start;
            frame.times.latency = frame.times.began.map_or(Duration::ZERO, |began| done - began);
            frame.recomputed = engine.recomputed_share();
        }
        outcome?;
        for frame in frames {
            frame.number = self.shared.metrics.extracted(done, &frame.times);
        }
        Ok(())
    }
}

impl Drop for EngineWorker {
    fn drop(&mut self) {
        self.shared.note(self.engine.take_notes());
        self.fitted.refuse();
        self.featured.close_all();
    }
}

/// A message to a sink.
#[derive(Clone, Debug)]
pub(crate) enum SinkMessage {
    Frame(Arc<Pooled>),
    Stats(Arc<LiveStats>),
}

/// Computes the heads that the sinks want and passes the frame to all sinks.
pub(crate) struct HeadsWorker {
    pub(crate) heads: Vec<NamedHead>,
    pub(crate) commands: HeadCommands,
    pub(crate) shared: Arc<Shared>,
    pub(crate) featured: Arc<Mailbox<Pooled>>,
    pub(crate) sinks: Vec<(Wants, Arc<Mailbox<SinkMessage>>)>,
}

impl HeadsWorker {
    pub(crate) fn run(&mut self) -> Result<(), PipelineError> {
        let mut taken = Vec::new();
        while self.featured.take_all(&mut taken) {
            for mut frame in taken.drain(..) {
                self.run_commands();
                self.compute(&mut frame)?;
                let (slot, frame) = (frame.camera, Arc::new(frame));
                for (_, mailbox) in &self.sinks {
                    self.shared.put_after_engine(mailbox, slot, SinkMessage::Frame(frame.clone()));
                }
            }
        }
        Ok(())
    }
}

impl HeadsWorker {
    /// Passes pending commands to their heads.
    fn run_commands(&mut self) {
        for (name, command) in self.commands.take() {
            let outcome = match self.heads.iter_mut().find(|named| named.name == name) {
                Some(named) => named.head.command(&command).map_err(|error| chain(&error)),
                None => Err("no such head in this run".into()),
            };
            if let Err(problem) = outcome {
                self.shared.note(vec![format!("head {name}: {problem}")]);
            }
        }
    }

    /// Computes the heads that any sink wants for this frame.
    fn compute(&mut self, frame: &mut FeatureFrame) -> Result<(), PipelineError> {
        // Taken out because heads borrow the frame while they write the outputs.
        let mut outputs = std::mem::take(&mut frame.outputs);
        outputs.clear();
        for NamedHead { name, head } in &mut self.heads {
            if self.sinks.iter().any(|(wants, _)| wants.include(name, frame.camera)) {
                let input =
                    HeadInput { camera: frame.camera, image: frame.image(), features: &frame.features };
                head.run(input, &mut outputs)?;
            }
        }
        frame.outputs = outputs;
        Ok(())
    }
}

impl Drop for HeadsWorker {
    fn drop(&mut self) {
        self.featured.refuse();
        self.sinks.iter().for_each(|(_, mailbox)| mailbox.close_all());
    }
}

/// Passes frames and statistics to one sink.
pub(crate) struct SinkWorker {
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) busy: Arc<BusyTimer>,
    pub(crate) mailbox: Arc<Mailbox<SinkMessage>>,
}

impl SinkWorker {
    pub(crate) fn run(&mut self) -> Result<(), PipelineError> {
        let outcome = self.feed();
        let finished = self.busy.during(|| self.sink.finish());
        outcome.and(finished).map_err(PipelineError::Sink)
    }

    fn feed(&mut self) -> Result<(), super::SinkFailure> {
        let Self { sink, shared, busy, mailbox } = self;
        let mut taken = Vec::new();
        while mailbox.take_all(&mut taken) {
            for sent in taken.drain(..) {
                busy.during(|| match &sent {
                    SinkMessage::Frame(frame) => sink.take(frame),
                    SinkMessage::Stats(stats) => sink.take_stats(stats),
                })?;
                shared.note(sink.take_notes());
            }
        }
        Ok(())
    }
}

impl Drop for SinkWorker {
    fn drop(&mut self) {
        self.mailbox.refuse();
    }
}
