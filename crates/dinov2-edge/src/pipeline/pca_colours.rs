use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use dinov2_heads::{PcaError, PcaView};

use super::FeatureFrame;

/// How often a view that follows the picture is fitted anew.
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);

/// When the colours of the features are fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PcaMode {
    /// To every frame: single images.
    Each,
    /// To the first frame, and then no more: in a video colours must not flicker.
    Frozen,
    /// Once a second.
    Follow,
}

/// Changes the colours of a pipeline that runs. Clones share it.
#[derive(Clone, Debug)]
pub struct PcaControl {
    mode: Arc<AtomicU8>,
    refit: Arc<AtomicBool>,
}

impl PcaControl {
    /// Begins in `mode`.
    pub fn new(mode: PcaMode) -> Self {
        Self { mode: Arc::new(AtomicU8::new(mode as u8)), refit: Arc::default() }
    }

    /// Changes the mode.
    pub fn set(&self, mode: PcaMode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// Fits to the next frame.
    pub fn refit(&self) {
        self.refit.store(true, Ordering::Relaxed);
    }

    fn mode(&self) -> PcaMode {
        match self.mode.load(Ordering::Relaxed) {
            mode if mode == PcaMode::Each as u8 => PcaMode::Each,
            mode if mode == PcaMode::Follow as u8 => PcaMode::Follow,
            _ => PcaMode::Frozen,
        }
    }
}

/// Colours features by their first three principal components.
#[derive(Debug)]
pub(crate) struct PcaColours {
    control: PcaControl,
    view: Option<(PcaView, Instant)>,
}

impl PcaColours {
    pub(crate) fn new(control: PcaControl) -> Self {
        Self { control, view: None }
    }

    /// Fills `pca_rgb`.
    pub(crate) fn colour(&mut self, frame: &mut FeatureFrame) -> Result<(), PcaError> {
        let due = match (&self.view, self.control.mode()) {
            (None, _) | (_, PcaMode::Each) => true,
            (Some((_, fitted)), PcaMode::Follow) => fitted.elapsed() >= FOLLOW_PERIOD,
            (Some(_), PcaMode::Frozen) => false,
        };
        let refit = self.control.refit.swap(false, Ordering::Relaxed);
        let view = match &mut self.view {
            Some((view, _)) if !due && !refit => view,
            view => {
                let fitted = PcaView::fit(frame.features.patches(), frame.features.dim())?;
                &mut view.insert((fitted, Instant::now())).0
            }
        };
        view.rgb_into(frame.features.patches(), &mut frame.pca_rgb)
    }
}
