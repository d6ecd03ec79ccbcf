//! The sink of the live page.

use std::sync::Arc;

use dinov2_io::LiveStats;
use dinov2_view::{Shown, View};

use super::{FeatureFrame, HeadCommands, Sink, SinkFailure, Wants};

/// Shows frames and outputs on the live page, and passes commands of viewers to the heads.
pub struct ViewSink {
    view: Arc<View>,
    heads: Vec<String>,
    commands: HeadCommands,
}

impl ViewSink {
    /// `heads`: names of the heads to show. `commands`: the same as in [`super::PipelineConfig::commands`].
    pub fn new(view: View, heads: Vec<String>, commands: HeadCommands) -> Self {
        Self { view: Arc::new(view), heads, commands }
    }
}

impl Sink for ViewSink {
    fn name(&self) -> &'static str {
        "live page"
    }

    fn wants(&self) -> Wants {
        let view = self.view.clone();
        Wants::heads(&self.heads).only_while(move |camera| view.wants_frame(camera))
    }

    fn take(&mut self, frame: &FeatureFrame) -> Result<(), SinkFailure> {
        for (head, command) in self.view.take_commands() {
            self.commands.send(&head, command);
        }
        // A frame without outputs passed the heads before a viewer connected.
        if self.heads.is_empty() || frame.outputs.iter().next().is_some() {
            self.view.show(&Shown {
                camera: frame.camera,
                image: frame.image(),
                features: &frame.features,
                outputs: &frame.outputs,
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
