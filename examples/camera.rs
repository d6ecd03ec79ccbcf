//! A camera through the pipeline: capture, engine and sink are threads, and frames that nobody has time for are dropped.
//!
//!     cargo run --release -p dinov2-edge --example camera              # a synthetic camera
//!     cargo run --release -p dinov2-edge --example camera /dev/video0

use std::num::NonZeroU64;

use dinov2_edge::io::{Camera, CameraConfig, Size, Source, TestCamera};
use dinov2_edge::pipeline::{FeatureFrame, Pipeline, PipelineConfig, Sink, SinkFailure};
use dinov2_edge::{EngineConfig, SelectedEngine};

/// Prints each frame. A robot would use the features here.
struct Print;

impl Sink for Print {
    fn name(&self) -> &'static str {
        "print"
    }

    fn take(&mut self, frame: &FeatureFrame) -> Result<(), SinkFailure> {
        let (patches, latency) = (frame.features.grid().len(), frame.times.latency);
        println!("{}: {patches} patches, {:.1?} from capture to features", frame.frame.name, latency);
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let source: Box<dyn Source> = match std::env::args().nth(1) {
        Some(device) => Box::new(Camera::open(CameraConfig::new(device))?),
        None => Box::new(TestCamera::parse("test:640x480@30")?),
    };
    let engine = SelectedEngine::open(&dinov2_bundled::bundled_model()?.into(), EngineConfig::default())?;
    let config = PipelineConfig { frames: NonZeroU64::new(10), ..PipelineConfig::new(Size::Short(224)) };
    let pipeline = Pipeline::new(vec![source], Box::new(engine), vec![], vec![Box::new(Print)], config);
    // `pipeline.stop_handle()` ends it from another thread.
    let stats = pipeline.run(&mut |seen| seen.notes.iter().for_each(|note| eprintln!("{note}")))?.stats;
    println!("{} frames, {:.1} per second, {} dropped", stats.frames, stats.fps, stats.drops.engine_busy);
    Ok(())
}
