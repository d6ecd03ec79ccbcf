//! From sources to sinks, in threads.
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
//! Every arrow is a place for one frame, so nothing ever queues up. Where all sources are live, a newer frame replaces one
//! that nobody has taken yet: latency stays bounded, and what is dropped is counted by reason. Else writers wait, and no
//! frame is lost. Frames are recycled.
//!
//! The calling thread supervises: it gathers statistics and notes once a second, and ends the pipeline when it is told to,
//! when a stage fails, or when a stage hangs.

mod error;
mod feature_frame;
mod heads;
mod mailbox;
mod metrics;
#[cfg(feature = "record")]
mod recording_sink;
mod sink;
mod stages;
mod supervisor;
mod thermals;
mod thinning;
#[cfg(feature = "view")]
mod view_sink;

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

/// What a pipeline does with the frames of its sources.
#[derive(Clone, Debug)]
pub struct PipelineConfig {
    /// Size that frames are brought to.
    pub size: Size,
    /// What else the engine reads out.
    pub taps: Taps,
    /// Ends after so many frames with features.
    pub frames: Option<NonZeroU64>,
    /// Ends after so long.
    pub duration: Option<Duration>,
    /// Least time from one frame to the next: of files between the times that their frames have in them, of cameras, and of
    /// frames without a time, by the clock.
    pub period: Option<Duration>,
    /// Ends with an error when engine or sink take longer than this for one frame.
    pub watchdog: Option<Duration>,
    /// Commands to the heads.
    pub commands: HeadCommands,
    /// What an input that cannot be used means, of sources that are not live.
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

/// What an input that cannot be used means for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadInputs {
    /// The end, with the input's error, once the frames before it are written.
    #[default]
    Stop,
    /// Nothing: it is reported by [`Observation::skipped`] and counted.
    Skip,
}

/// Sources, an engine and sinks, ready to run.
pub struct Pipeline {
    sources: Vec<Box<dyn Source>>,
    engine: Box<dyn Engine>,
    heads: Vec<NamedHead>,
    sinks: Vec<Box<dyn Sink>>,
    config: PipelineConfig,
    events: (Sender<Event>, Receiver<Event>),
}

/// Ends a pipeline from any thread.
#[derive(Clone, Debug)]
pub struct PipelineStop(Sender<Event>);

impl PipelineStop {
    /// Asks for the end: what has features is still written, what has none is let go.
    pub fn stop(&self) {
        // Fails only when the pipeline has ended.
        let _ = self.0.send(Event::Stop);
    }
}

/// How a pipeline ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// What it did.
    pub stats: LiveStats,
    /// Inputs that could not be used, or not to their end.
    pub skipped: u64,
    /// True if [`PipelineStop::stop`] ended it.
    pub stopped: bool,
}

/// What the supervisor sees, once a second and at the end.
#[derive(Debug)]
pub struct Observation<'a> {
    /// How the run is doing.
    pub stats: &'a LiveStats,
    /// What a person should hear, each once.
    pub notes: Vec<String>,
    /// Inputs that could not be used, each once.
    pub skipped: Vec<PipelineError>,
}

impl Pipeline {
    /// The frames of source `i` are those of camera `i`. The engine also reads out what the heads need.
    pub fn new(
        sources: Vec<Box<dyn Source>>,
        engine: Box<dyn Engine>,
        heads: Vec<NamedHead>,
        sinks: Vec<Box<dyn Sink>>,
        config: PipelineConfig,
    ) -> Self {
        Self { sources, engine, heads, sinks, config, events: channel() }
    }

    /// Ends it from another thread.
    pub fn stop_handle(&self) -> PipelineStop {
        PipelineStop(self.events.0.clone())
    }

    /// Runs until the sources end, a limit is reached, [`PipelineStop::stop`] is called or something fails. All sinks have
    /// finished when it returns. An engine in the middle of a frame is not waited for: its thread ends after it.
    ///
    /// # Errors
    /// The first failure of a stage.
    pub fn run(self, observe: &mut dyn FnMut(Observation<'_>)) -> Result<Summary, PipelineError> {
        supervisor::run(self, observe)
    }
}
