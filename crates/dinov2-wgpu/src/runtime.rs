use std::time::Duration;

use dinov2_core::{Engine, EngineFacts};

use crate::{GpuPrecision, HostTimes, Stage, WgpuEngine};

/// Name of this backend.
pub const BACKEND: &str = "wgpu";

impl Engine for WgpuEngine {
    fn facts(&self) -> EngineFacts {
        let precision = match self.precision() {
            GpuPrecision::F32 => "f32",
            GpuPrecision::F16 => "f16",
            GpuPrecision::Int8 => "int8",
        };
        let device = self.gpu().facts().name.clone().into();
        EngineFacts { backend: BACKEND, precision, device, threads: None }
    }

    /// The stages on the device while profiling is on, else the host's work.
    fn stage_times(&self) -> Vec<(&'static str, Duration)> {
        if let Some(times) = Self::stage_times(self) {
            return Stage::ALL.iter().map(|&stage| (stage.name(), times.get(stage))).collect();
        }
        let HostTimes { in_the_way, ahead } = self.host_times();
        vec![("host", in_the_way), ("host_ahead", ahead)]
    }

    fn set_profiling(&mut self, on: bool) -> bool {
        Self::set_profiling(self, on);
        true
    }
}
