//! What the threads of a pipeline do. Each stage reads one mailbox and writes the next. When it is dropped, at its end or by a
//! panic, it refuses the one and closes the other, so that an end travels both ways.

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

/// What all stages share.
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

    /// Puts a frame before the engine. False if there is no engine any more.
    fn put_before_engine(&self, mailbox: &Mailbox<Pooled>, place: usize, frame: Pooled) -> bool {
        match mailbox.put(place, frame) {
            Put::Stored => true,
            Put::Replaced(_) => {
                let pausing = self.pausing.load(Ordering::Relaxed);
                self.metrics.dropped(if pausing { Dropped::RateLimit } else { Dropped::EngineBusy });
                true
            }
            Put::Refused(_) => false,
        }
    }

    /// Puts something behind the engine. False if nobody is there any more.
    fn put_behind_engine<T>(&self, mailbox: &Mailbox<T>, place: usize, value: T) -> bool {
        match mailbox.put(place, value) {
            Put::Stored => true,
            Put::Replaced(_) => {
                self.metrics.dropped(Dropped::SinkBusy);
                true
            }
            Put::Refused(_) => false,
        }
    }
}

/// Since when a stage has been at work on one frame.
#[derive(Debug)]
pub(crate) struct Beat {
    pub(crate) stage: &'static str,
    since: Mutex<Option<Instant>>,
}

impl Beat {
    pub(crate) fn new(stage: &'static str) -> Self {
        Self { stage, since: Mutex::new(None) }
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

/// Reads one source.
pub(crate) struct Capture {
    pub(crate) camera: usize,
    pub(crate) source: Box<dyn Source>,
    pub(crate) thinning: Thinning,
    /// Stands before the names of frames: of several sources each may have a frame of the same name.
    pub(crate) prefix: Option<String>,
    pub(crate) bad_inputs: BadInputs,
    pub(crate) shared: Arc<Shared>,
    pub(crate) captured: Arc<Mailbox<Pooled>>,
}

impl Capture {
    pub(crate) fn run(&mut self) -> Result<(), PipelineError> {
        while !self.shared.stop.is_stopped() {
            let mut frame = self.shared.pool.take();
            let asked = Instant::now();
            match self.source.next_frame(&mut frame.frame) {
                Ok(true) => {}
                Ok(false) => break,
                // The source goes on with its next input.
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

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.note(self.source.take_notes());
        self.captured.close_all();
    }
}

/// Brings the frames of one source to the grid.
pub(crate) struct Fitting {
    pub(crate) camera: usize,
    pub(crate) fit: Fit,
    pub(crate) bad_inputs: BadInputs,
    pub(crate) shared: Arc<Shared>,
    pub(crate) captured: Arc<Mailbox<Pooled>>,
    pub(crate) fitted: Arc<Mailbox<Pooled>>,
}

impl Fitting {
    pub(crate) fn run(&mut self) -> Result<(), PipelineError> {
        let mut taken = Vec::new();
        // A video whose frames do not fit is told of once.
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

impl Fitting {
    fn fit(&mut self, frame: &mut FeatureFrame) -> Result<(), FitError> {
        let image = self.fit.fit(frame.frame.view())?;
        frame.fitted.clear();
        frame.fitted.extend_from_slice(image.pixels());
        frame.fitted_px = (image.width_px(), image.height_px());
        frame.crop = self.fit.crop(frame.frame.width_px, frame.frame.height_px)?;
        Ok(())
    }
}

impl Drop for Fitting {
    fn drop(&mut self) {
        self.captured.refuse();
        self.fitted.close(self.camera);
    }
}

/// Runs the engine on whatever cameras have a new frame.
pub(crate) struct Extract {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) taps: Taps,
    pub(crate) most_frames: Option<u64>,
    pub(crate) period: Option<Duration>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) beat: Arc<Beat>,
    pub(crate) fitted: Arc<Mailbox<Pooled>>,
    pub(crate) featured: Arc<Mailbox<Pooled>>,
}

impl Extract {
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
                let place = frame.camera;
                if self.shared.stop.is_stopped()
                    || !self.shared.put_behind_engine(&self.featured, place, frame)
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Frames that may still come.
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
        let Self { engine, taps, beat, .. } = self;
        let outcome = beat.during(|| match (&*frames, &mut features[..]) {
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

impl Drop for Extract {
    fn drop(&mut self) {
        self.shared.note(self.engine.take_notes());
        self.fitted.refuse();
        self.featured.close_all();
    }
}

/// What is handed to a sink.
#[derive(Clone, Debug)]
pub(crate) enum ForSink {
    Frame(Arc<Pooled>),
    Stats(Arc<LiveStats>),
}

/// Computes what the sinks want of a frame and hands it to all of them.
pub(crate) struct Heads {
    pub(crate) heads: Vec<NamedHead>,
    pub(crate) commands: HeadCommands,
    pub(crate) shared: Arc<Shared>,
    pub(crate) featured: Arc<Mailbox<Pooled>>,
    pub(crate) sinks: Vec<(Wants, Arc<Mailbox<ForSink>>)>,
}

impl Heads {
    pub(crate) fn run(&mut self) -> Result<(), PipelineError> {
        let mut taken = Vec::new();
        while self.featured.take_all(&mut taken) {
            for mut frame in taken.drain(..) {
                self.obey();
                self.compute(&mut frame)?;
                let (place, frame) = (frame.camera, Arc::new(frame));
                for (_, mailbox) in &self.sinks {
                    self.shared.put_behind_engine(mailbox, place, ForSink::Frame(frame.clone()));
                }
            }
        }
        Ok(())
    }
}

impl Heads {
    /// Hands waiting commands to their heads.
    fn obey(&mut self) {
        for (name, command) in self.commands.take() {
            let outcome = match self.heads.iter_mut().find(|named| named.name == name) {
                Some(named) => named.head.command(&command).map_err(|error| chain(&error)),
                None => Err("this run has no such head".into()),
            };
            if let Err(problem) = outcome {
                self.shared.note(vec![format!("head {name}: {problem}")]);
            }
        }
    }

    /// Computes the heads that a sink wants of this frame.
    fn compute(&mut self, frame: &mut FeatureFrame) -> Result<(), PipelineError> {
        // Taken out, because heads read the frame while they write its outputs.
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

impl Drop for Heads {
    fn drop(&mut self) {
        self.featured.refuse();
        self.sinks.iter().for_each(|(_, mailbox)| mailbox.close_all());
    }
}

/// Feeds one sink.
pub(crate) struct Feeding {
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) beat: Arc<Beat>,
    pub(crate) mailbox: Arc<Mailbox<ForSink>>,
}

impl Feeding {
    pub(crate) fn run(&mut self) -> Result<(), PipelineError> {
        let outcome = self.feed();
        let finished = self.beat.during(|| self.sink.finish());
        outcome.and(finished).map_err(PipelineError::Sink)
    }

    fn feed(&mut self) -> Result<(), super::SinkFailure> {
        let Self { sink, shared, beat, mailbox } = self;
        let mut taken = Vec::new();
        while mailbox.take_all(&mut taken) {
            for sent in taken.drain(..) {
                beat.during(|| match &sent {
                    ForSink::Frame(frame) => sink.take(frame),
                    ForSink::Stats(stats) => sink.take_stats(stats),
                })?;
                shared.note(sink.take_notes());
            }
        }
        Ok(())
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.mailbox.refuse();
    }
}
