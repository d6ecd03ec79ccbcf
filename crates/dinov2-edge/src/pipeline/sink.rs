use dinov2_io::LiveStats;

use super::{FeatureFrame, SinkFailure, Wants};

/// Takes frames with features, in a thread of its own.
///
/// A sink that is still busy when the next frame comes delays nobody: in a live run it loses that frame, else its pipeline
/// waits for it.
pub trait Sink: Send {
    /// For messages.
    fn name(&self) -> &'static str;

    /// The heads whose outputs it takes from [`FeatureFrame::outputs`]; asked once, when the pipeline starts.
    fn wants(&self) -> Wants {
        Wants::nothing()
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// Ends the pipeline.
    fn take(&mut self, frame: &FeatureFrame) -> Result<(), SinkFailure>;

    /// Takes what the run tells about itself, once a second.
    ///
    /// # Errors
    /// Ends the pipeline.
    fn take_stats(&mut self, _stats: &LiveStats) -> Result<(), SinkFailure> {
        Ok(())
    }

    /// What a person should hear and no error says. Each is returned once.
    fn take_notes(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// There is nothing more to come.
    ///
    /// # Errors
    /// What could not be completed.
    fn finish(&mut self) -> Result<(), SinkFailure> {
        Ok(())
    }
}
