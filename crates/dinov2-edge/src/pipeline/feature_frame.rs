//! The frame that travels through a pipeline, and the pool that reuses frames.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dinov2_core::{Crop, Features, HeadOutputs, ImageView, PatchGeometry};
use dinov2_io::Frame;

/// A frame with all that the workers of a pipeline add to it.
#[derive(Debug, Default)]
pub struct FeatureFrame {
    /// Number of the source, from 0.
    pub camera: usize,
    /// Position among all frames with features, from 0.
    pub number: u64,
    /// The frame of the source.
    pub frame: Frame,
    /// Input image of the engine: RGB u8, `[height, width, 3]`.
    pub fitted: Vec<u8>,
    /// Width and height of [`Self::fitted`].
    pub fitted_px: (usize, usize),
    /// The part of the source frame that the grid covers.
    pub crop: Crop,
    /// The features.
    pub features: Features,
    /// Outputs of the heads that a sink wanted.
    pub outputs: HeadOutputs,
    /// Share of the rows that were recomputed, 0..=1; `None` for an engine that does not reuse rows.
    pub recomputed: Option<f64>,
    /// Durations.
    pub times: Times,
}

/// The start of a frame and how long its steps took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Time of capture for live sources; otherwise when reading began.
    pub began: Option<Instant>,
    /// Reading and decoding; for live sources, from capture to RGB.
    pub read: Duration,
    /// Resizing to the grid.
    pub fit: Duration,
    /// The engine, for the whole batch if several cameras share one.
    pub extract: Duration,
    /// From [`Self::began`] to the features.
    pub latency: Duration,
}

impl FeatureFrame {
    /// Input image of the engine.
    ///
    /// # Panics
    /// If the lengths of [`Self::fitted`] and [`Self::fitted_px`] do not match.
    pub fn image(&self) -> ImageView<'_> {
        let (width, height) = self.fitted_px;
        ImageView::new(&self.fitted, width, height).expect("fitted pixels match the fitted size")
    }

    /// Geometry of the patches in the frame of the source.
    pub fn geometry(&self) -> PatchGeometry {
        PatchGeometry::new(self.features.grid(), self.crop)
    }
}

/// Frames for reuse, so that nothing is allocated per frame. Clones share one pool.
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
