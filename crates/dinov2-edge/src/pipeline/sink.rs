use std::fmt;
use std::sync::Arc;

use dinov2_io::LiveStats;

use super::{FeatureFrame, SinkFailure};

/// Takes frames with features, in a thread of its own.
///
/// A sink that is still busy when the next frame comes delays nobody: in a live run it loses that frame, else its pipeline
/// waits for it.
pub trait Sink: Send {
    /// For messages.
    fn name(&self) -> &'static str;

    /// Whether [`FeatureFrame::pca_rgb`] is wanted.
    fn pca_wish(&self) -> PcaWish {
        PcaWish::Never
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

/// Whether a sink wants the colours of a frame. They cost a projection per frame, so they are only made where one does.
#[derive(Clone)]
pub enum PcaWish {
    /// No.
    Never,
    /// For every frame.
    Always,
    /// While this says so of the camera; asked from another thread.
    While(Arc<dyn Fn(usize) -> bool + Send + Sync>),
}

impl PcaWish {
    pub(crate) fn now(&self, camera: usize) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::While(asked) => asked(camera),
        }
    }
}

impl fmt::Debug for PcaWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "Never",
            Self::Always => "Always",
            Self::While(_) => "While(..)",
        })
    }
}
