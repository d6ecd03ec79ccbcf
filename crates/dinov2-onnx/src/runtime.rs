use dinov2_core::{Engine, EngineFacts};

use crate::OnnxEngine;

/// Name of this backend.
pub const BACKEND: &str = "onnx";

impl Engine for OnnxEngine {
    fn facts(&self) -> EngineFacts {
        EngineFacts {
            backend: BACKEND,
            precision: "f32",
            device: "tract".into(),
            threads: Some(self.thread_count()),
        }
    }
}
