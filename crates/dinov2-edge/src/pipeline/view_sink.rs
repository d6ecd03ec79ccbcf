use std::sync::Arc;

use dinov2_io::LiveStats;
use dinov2_view::{PcaRequest, Shown, View};

use super::{FeatureFrame, PcaControl, PcaMode, PcaWish, Sink, SinkFailure};

/// Shows frames on the live page, and does to the colours what its viewers ask for.
pub struct ViewSink {
    view: Arc<View>,
    pca: PcaControl,
}

impl ViewSink {
    /// `pca`: that of the pipeline's configuration.
    pub fn new(view: View, pca: PcaControl) -> Self {
        Self { view: Arc::new(view), pca }
    }
}

impl Sink for ViewSink {
    fn name(&self) -> &'static str {
        "live page"
    }

    fn pca_wish(&self) -> PcaWish {
        let view = self.view.clone();
        PcaWish::While(Arc::new(move |camera| view.wants_frame(camera)))
    }

    fn take(&mut self, frame: &FeatureFrame) -> Result<(), SinkFailure> {
        match self.view.take_request() {
            Some(PcaRequest::Refit) => self.pca.refit(),
            Some(PcaRequest::Freeze) => self.pca.set(PcaMode::Frozen),
            Some(PcaRequest::Follow) => self.pca.set(PcaMode::Follow),
            None => {}
        }
        // Without colours nobody had come yet when the frame passed the heads.
        if !frame.pca_rgb.is_empty() {
            self.view.show(&Shown {
                camera: frame.camera,
                image: frame.image(),
                features: &frame.features,
                pca_rgb: &frame.pca_rgb,
                index: frame.number,
                capture_ns: frame.frame.capture_ns,
                latency_ms: frame.times.latency.as_secs_f64() * 1e3,
            });
        }
        Ok(())
    }

    fn take_stats(&mut self, stats: &LiveStats) -> Result<(), SinkFailure> {
        self.view.update(stats);
        Ok(())
    }
}
