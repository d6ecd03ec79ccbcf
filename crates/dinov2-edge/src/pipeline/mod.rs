//! Runs sources, engine, heads and sinks on one thread each.
//!
//! ```text
//! source 0 ─ capture ─► fit ─┐                        ┌─► sink
//! source 1 ─ capture ─► fit ─┴─► engine ─► heads ─────┴─► sink
//! ```
//!
//! ```
//! use dinov2_edge::io::{Size, SourceOptions, open};
//! use dinov2_edge::pipeline::{FeatureFrame, Pipeline, PipelineConfig, Sink, SinkFailure};
//! use dinov2_edge::{EngineConfig, SelectedEngine};
//!
//! struct Print;
//!
//! impl Sink for Print {
//!     fn name(&self) -> &'static str {
//!         "print"
//!     }
//!
//!     fn take(&mut self, frame: &FeatureFrame) -> Result<(), SinkFailure> {
//!         println!("{}: {} patches", frame.frame.name, frame.features.grid().len());
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = open(&["test:320x240@3"], &SourceOptions::default())?; // or files, folders, videos
//! let engine = SelectedEngine::open(&dinov2_bundled::bundled_model()?.into(), EngineConfig::default())?;
//! let config = PipelineConfig::new(Size::Short(112));
//! let pipeline = Pipeline::new(vec![source], Box::new(engine), vec![], vec![Box::new(Print)], config);
//! let summary = pipeline.run(&mut |_| {})?;
//! assert_eq!(summary.stats.frames, 3);
//! # Ok(())
//! # }
//! ```
//!
//! Every arrow is a slot for one frame; there are no queues. If all sources are live, a newer frame replaces one that was not taken
//! yet: latency stays bounded, and dropped frames are counted by reason. Otherwise writers wait, and no frame is lost. Frames are
//! reused.
//!
//! The calling thread supervises: it gathers statistics and notes once a second, and ends the pipeline when it is stopped, or when a
//! worker fails or hangs.

mod error;
mod feature_frame;
mod heads;
mod mailbox;
mod metrics;
#[cfg(feature = "record")]
mod recording_sink;
mod sink;
mod supervisor;
mod thermals;
mod thinning;
#[cfg(feature = "view")]
mod view_sink;
mod workers;

use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use dinov2_core::{Engine, Taps};
use dinov2_io::{LiveStats, Size, Source};

pub use error::{PipelineError, SinkFailure};
pub use feature_frame::{FeatureFrame, Times};
pub use heads::{HeadCommands, NamedHead, Wants};
#[cfg(feature = "record")]
pub use recording_sink::RecordingSink;
pub use sink::Sink;
use supervisor::Event;
pub use thermals::{Thermals, thermals};
#[cfg(feature = "view")]
pub use view_sink::ViewSink;

/// Configuration of a pipeline.
#[derive(Clone, Debug)]
pub struct PipelineConfig {
    /// Size that frames are resized or cropped to.
    pub size: Size,
    /// Taps of the engine, besides those that the heads need.
    pub taps: Taps,
    /// Maximum number of frames with features.
    pub frames: Option<NonZeroU64>,
    /// Maximum duration.
    pub duration: Option<Duration>,
    /// Minimum time between two frames: by the timestamps of frames from files, by the clock for cameras and for frames without
    /// timestamps.
    pub period: Option<Duration>,
    /// Maximum time of the engine or a sink for one frame; the run fails if it is exceeded.
    pub watchdog: Option<Duration>,
    /// Commands to the heads.
    pub commands: HeadCommands,
    /// What to do when an input of a source that is not live cannot be used.
    pub bad_inputs: BadInputs,
}

impl PipelineConfig {
    /// Frames of this size, only the final tokens, no limits.
    pub fn new(size: Size) -> Self {
        Self {
            size,
            taps: Taps::none(),
            frames: None,
            duration: None,
            period: None,
            watchdog: None,
            commands: HeadCommands::default(),
            bad_inputs: BadInputs::default(),
        }
    }
}

/// What to do when an input cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadInputs {
    /// Ends the run with the input's error, after the frames before it are written.
    #[default]
    Stop,
    /// Skips the input, reports it in [`Observation::skipped`] and counts it.
    Skip,
}

/// Sources, an engine and sinks, ready to run.
pub struct Pipeline {
    sources: Vec<Box<dyn Source>>,
    engine: Box<dyn Engine + Send>,
    heads: Vec<NamedHead>,
    sinks: Vec<Box<dyn Sink>>,
    config: PipelineConfig,
    events: (Sender<Event>, Receiver<Event>),
}

/// Stops a pipeline from any thread.
#[derive(Clone, Debug)]
pub struct PipelineStop(Sender<Event>);

impl PipelineStop {
    /// Stops the pipeline: frames with features are still written, frames without are dropped.
    pub fn stop(&self) {
        // Fails only after the pipeline has ended.
        let _ = self.0.send(Event::Stop);
    }
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Final statistics.
    pub stats: LiveStats,
    /// Number of inputs that could not be used or read to their end.
    pub skipped: u64,
    /// True if [`PipelineStop::stop`] ended it.
    pub stopped: bool,
}

/// A report to the caller, once a second and at the end.
#[derive(Debug)]
pub struct Observation<'a> {
    /// Statistics so far.
    pub stats: &'a LiveStats,
    /// Messages for the user. Each is reported once.
    pub notes: Vec<String>,
    /// Inputs that could not be used. Each is reported once.
    pub skipped: Vec<PipelineError>,
}

impl Pipeline {
    /// Source `i` is camera `i`. The engine computes the configured taps and those that the heads need.
    pub fn new(
        sources: Vec<Box<dyn Source>>,
        engine: Box<dyn Engine + Send>,
        heads: Vec<NamedHead>,
        sinks: Vec<Box<dyn Sink>>,
        config: PipelineConfig,
    ) -> Self {
        Self { sources, engine, heads, sinks, config, events: channel() }
    }

    /// A handle to stop the pipeline from another thread.
    pub fn stop_handle(&self) -> PipelineStop {
        PipelineStop(self.events.0.clone())
    }

    /// Runs until the sources end, a limit is reached, [`PipelineStop::stop`] is called or a worker fails. All sinks have
    /// finished when it returns. An engine in the middle of a frame is not waited for: its thread ends after that frame.
    ///
    /// # Errors
    /// The first failure of a worker.
    pub fn run(self, observe: &mut dyn FnMut(Observation<'_>)) -> Result<Summary, PipelineError> {
        supervisor::run(self, observe)
    }
}
