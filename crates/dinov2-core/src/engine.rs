//! The trait [`Engine`]: what programs need of an engine besides [`Extractor`], and the facts that describe it.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use core::num::NonZeroUsize;
use core::time::Duration;

use crate::Extractor;

/// Description of an engine. [`fmt::Display`] writes `cpu f32 (avx2), 2 threads` or `wgpu f16 (NVIDIA Orin)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    /// Name of the backend: `cpu`, `wgpu` or `onnx`.
    pub backend: &'static str,
    /// Arithmetic of the matrix products: `f32`, `bf16`, `f16` or `int8`.
    pub precision: &'static str,
    /// The device: an instruction set, a GPU or a library.
    pub device: Cow<'static, str>,
    /// Number of CPU threads; `None` for an engine that does not run on the CPU.
    pub threads: Option<NonZeroUsize>,
}

impl fmt::Display for EngineFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, precision, device, threads } = self;
        write!(f, "{backend} {precision} ({device})")?;
        match threads.map(NonZeroUsize::get) {
            None => Ok(()),
            Some(1) => write!(f, ", 1 thread"),
            Some(threads) => write!(f, ", {threads} threads"),
        }
    }
}

/// An [`Extractor`] with a description, timings and notes.
///
/// Each engine crate implements it, so that programs hold a `Box<dyn Engine>` and do not depend on an engine. [`Any`] is a supertrait
/// for tools that measure one particular engine and downcast to it. `Send` is not required, because a GPU's buffers stay in their thread in
/// a browser; a pipeline takes a `Box<dyn Engine + Send>`.
///
/// ```
/// use dinov2_core::{Engine, ExtractError, Features, ImageView, Taps};
///
/// fn extract(engine: &mut dyn Engine, image: ImageView<'_>) -> Result<Features, ExtractError> {
///     let mut features = Features::new();
///     engine.extract(image, &Taps::none(), &mut features)?;
///     println!("{}: {:?}", engine.facts(), engine.stage_times());
///     Ok(features)
/// }
/// ```
pub trait Engine: Extractor + Any {
    /// Description of this engine.
    fn facts(&self) -> EngineFacts;

    /// Why this engine was selected; empty if it was not selected automatically.
    fn reason(&self) -> &str {
        ""
    }

    /// Time of the last frame per stage (name, duration), in order of execution; empty for an engine that does not measure it.
    fn stage_times(&self) -> Vec<(&'static str, Duration)> {
        Vec::new()
    }

    /// Turns the timing of stages on or off in an engine that it slows down. Returns true for such an engine: total times and stage
    /// times must then be measured on different frames.
    fn set_profiling(&mut self, _on: bool) -> bool {
        false
    }

    /// Share of the token rows that the last frame recomputed, 0..=1; `None` for an engine that does not reuse rows.
    fn recomputed_share(&self) -> Option<f64> {
        None
    }

    /// Messages for the user, such as a change to another engine. Each is returned once.
    fn take_notes(&mut self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn facts_read_as_one_phrase() {
        let facts = |threads| EngineFacts {
            backend: "cpu",
            precision: "int8",
            device: "avx2".into(),
            threads: NonZeroUsize::new(threads),
        };
        assert_eq!(facts(0).to_string(), "cpu int8 (avx2)");
        assert_eq!(facts(1).to_string(), "cpu int8 (avx2), 1 thread");
        assert_eq!(facts(2).to_string(), "cpu int8 (avx2), 2 threads");
    }
}
