use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dinov2_core::{Crop, Features, HeadOutputs, ImageView, PatchGeometry};
use dinov2_io::Frame;

/// A frame on its way, with what the stages so far have added.
#[derive(Debug, Default)]
pub struct FeatureFrame {
    /// Which source, from 0.
    pub camera: usize,
    /// Position among all frames with features, from 0.
    pub number: u64,
    /// As it came from its source.
    pub frame: Frame,
    /// What the engine saw: RGB, `[fitted_px.1, fitted_px.0, 3]`.
    pub fitted: Vec<u8>,
    /// Width and height of the fitted image.
    pub fitted_px: (usize, usize),
    /// The part of the frame under the grid.
    pub crop: Crop,
    /// The features.
    pub features: Features,
    /// What heads made of the features: of the heads that a sink wanted.
    pub outputs: HeadOutputs,
    /// Share of the rows that were computed anew, with an engine that reuses them.
    pub recomputed: Option<f64>,
    /// How long it took.
    pub times: Times,
}

/// When a frame came and how long its stages took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Capture, of live sources; else when its reading began.
    pub began: Option<Instant>,
    /// Reading and decoding; of live sources, from capture to RGB.
    pub read: Duration,
    /// Resizing to the grid.
    pub fit: Duration,
    /// The engine, of the whole batch where several cameras share one.
    pub extract: Duration,
    /// From [`Self::began`] to the features.
    pub latency: Duration,
}

impl FeatureFrame {
    /// What the engine saw.
    ///
    /// # Panics
    /// If pixels and size were changed by hand and no longer match.
    pub fn image(&self) -> ImageView<'_> {
        let (width, height) = self.fitted_px;
        ImageView::new(&self.fitted, width, height).expect("fitted pixels match the fitted size")
    }

    /// Where the patches lie in the frame as it came from its source.
    pub fn geometry(&self) -> PatchGeometry {
        PatchGeometry::new(self.features.grid(), self.crop)
    }
}

/// Frames that wait to be used again, so that nothing is allocated per frame. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    free: Arc<Mutex<Vec<FeatureFrame>>>,
}

/// A frame that returns to its pool when dropped.
#[derive(Debug)]
pub(crate) struct Pooled {
    frame: Option<FeatureFrame>,
    pool: Pool,
}

impl Pool {
    pub(crate) fn take(&self) -> Pooled {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Pooled { frame: Some(free.unwrap_or_default()), pool: self.clone() }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(frame) = self.frame.take() {
            self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
        }
    }
}

impl Deref for Pooled {
    type Target = FeatureFrame;

    fn deref(&self) -> &FeatureFrame {
        self.frame.as_ref().expect("a frame, until it is dropped")
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut FeatureFrame {
        self.frame.as_mut().expect("a frame, until it is dropped")
    }
}
