use std::num::NonZeroUsize;
use std::time::Duration;

use dinov2_core::{Engine, EngineFacts};

use crate::{CpuEngine, CpuPrecision, Stage};

/// Name of this backend.
pub const BACKEND: &str = "cpu";

impl Engine for CpuEngine {
    fn facts(&self) -> EngineFacts {
        let precision = match self.precision() {
            CpuPrecision::F32 => "f32",
            CpuPrecision::Half => self.isa().half_format().name(),
            CpuPrecision::Int8 => "int8",
        };
        let threads = NonZeroUsize::new(self.threads());
        EngineFacts { backend: BACKEND, precision, device: self.isa().name().into(), threads }
    }

    fn stage_times(&self) -> Vec<(&'static str, Duration)> {
        let times = Self::stage_times(self);
        Stage::ALL.iter().map(|&stage| (stage.name(), times.get(stage))).collect()
    }

    fn recomputed_share(&self) -> Option<f64> {
        Self::recomputed_share(self)
    }
}
