use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;
use core::num::NonZeroUsize;
use core::time::Duration;

use crate::Extractor;

/// What an engine is. [`fmt::Display`] writes `cpu f32 (avx2), 2 threads` or `wgpu f16 (NVIDIA Orin)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    /// Name of the backend: `cpu`, `wgpu` or `onnx`.
    pub backend: &'static str,
    /// Arithmetic of the matrix products: `f32`, `bf16`, `f16` or `int8`.
    pub precision: &'static str,
    /// What computes: an instruction set, a GPU or a library.
    pub device: Cow<'static, str>,
    /// Threads of the CPU; `None` for an engine that computes elsewhere.
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

/// An engine as a program sees it: an [`Extractor`] that says what it is and where its time goes.
///
/// Each engine crate implements it, so that programs hold a `Box<dyn Engine>` and name no engine. [`Any`] is a supertrait for the few
/// tools that measure one particular engine and downcast to it.
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
pub trait Engine: Extractor + Send + Any {
    /// What this engine is.
    fn facts(&self) -> EngineFacts;

    /// Why this engine was selected, where a program had the choice; else empty.
    fn reason(&self) -> &str {
        ""
    }

    /// Where the last frame's time went, by the names of the stages; empty for an engine that does not measure it.
    fn stage_times(&self) -> Vec<(&'static str, Duration)> {
        Vec::new()
    }

    /// Turns the timing of stages on or off where it slows the engine down. Returns whether it does: then frames timed as a whole and
    /// frames timed by stages must be different frames.
    fn set_profiling(&mut self, _on: bool) -> bool {
        false
    }

    /// Share of the rows that the last frame computed anew, in 0..=1; `None` for an engine that does not reuse rows.
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
