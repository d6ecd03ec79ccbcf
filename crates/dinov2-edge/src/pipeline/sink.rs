//! The trait of sinks.

use dinov2_io::LiveStats;

use super::{FeatureFrame, SinkFailure, Wants};

/// A consumer of frames with features. Each sink runs on its own thread.
///
/// A sink that is busy when the next frame arrives loses that frame in a live run; in a run over files the pipeline waits for it.
pub trait Sink: Send {
    /// Name for messages.
    fn name(&self) -> &'static str;

    /// The heads whose outputs it reads from [`FeatureFrame::outputs`]. Called once, when the pipeline starts.
    fn wants(&self) -> Wants {
        Wants::nothing()
    }

    /// Processes a frame.
    ///
    /// # Errors
    /// An error ends the pipeline.
    fn take(&mut self, frame: &FeatureFrame) -> Result<(), SinkFailure>;

    /// Processes the statistics of the run. Called once a second.
    ///
    /// # Errors
    /// An error ends the pipeline.
    fn take_stats(&mut self, _stats: &LiveStats) -> Result<(), SinkFailure> {
        Ok(())
    }

    /// Messages for the user that are not errors. Each is returned once.
    fn take_notes(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Completes the output. Called once, after the last frame.
    ///
    /// # Errors
    /// The output cannot be completed.
    fn finish(&mut self) -> Result<(), SinkFailure> {
        Ok(())
    }
}
