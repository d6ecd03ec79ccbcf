//! Selects and opens an engine from a model and an [`EngineConfig`].
//!
//! [`SelectedEngine::open`] → one of `cpu.rs`, `gpu.rs`, `onnx.rs` → a `Box<dyn Engine + Send>`. No code outside this folder names an engine.
//! Engines that are not compiled in are replaced by `without_*.rs`.

mod config;
mod cpu;
mod error;
#[cfg_attr(not(feature = "wgpu"), path = "without_gpu.rs")]
mod gpu;
#[cfg_attr(not(feature = "tract"), path = "without_onnx.rs")]
mod onnx;

use std::any::Any;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use dinov2_core::{Engine, EngineFacts, ExtractError, Extractor, Features, ImageView, Taps, VitSpec};
use dinov2_cpu::{CpuConfig, default_threads};
use dinov2_files::chain;
use dinov2_weights::Model;

pub use config::{Backend, EngineConfig, ParseChoiceError, Precision};
pub use error::EngineError;
#[cfg(feature = "wgpu")]
pub use gpu::{Comparison, last_comparison, open_gpu};

use crate::ModelSource;

/// The engine for a model on this machine and the reason for it. A GPU that was selected automatically has the CPU engine as its
/// fallback.
///
/// ```
/// use dinov2_edge::{Engine, EngineConfig, SelectedEngine};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let model = dinov2_bundled::bundled_model()?;
/// let engine = SelectedEngine::open(&model.into(), EngineConfig::default())?;
/// println!("{}, because {}", engine.facts(), engine.reason());
/// # Ok(())
/// # }
/// ```
pub struct SelectedEngine {
    engine: Box<dyn Engine + Send>,
    reason: String,
    notes: Vec<String>,
    fallback: Option<Fallback>,
}

struct Fallback {
    model: Model,
    config: CpuConfig,
}

impl SelectedEngine {
    /// Loads the model into the engine that the configuration selects.
    ///
    /// # Errors
    /// A model that the engine cannot load, settings that it does not support, or an engine that is not compiled in.
    pub fn open(source: &ModelSource, config: EngineConfig) -> Result<Self, EngineError> {
        match (config.backend, source) {
            (Backend::Auto, ModelSource::Model(model)) => Self::fastest(model, &config),
            (Backend::Cpu, ModelSource::Model(model)) => cpu::open(model, &config),
            (Backend::Wgpu, ModelSource::Model(model)) => gpu::open(model, &config),
            (Backend::Cpu, ModelSource::Onnx(path)) => Err(needs_model_file("cpu", path)),
            (Backend::Wgpu, ModelSource::Onnx(path)) => Err(needs_model_file("wgpu", path)),
            (Backend::Auto | Backend::Onnx, source) => Self::open_onnx(source, &config),
        }
    }

    fn new_with(engine: impl Engine + Send, reason: impl Into<String>) -> Self {
        Self { engine: Box::new(engine), reason: reason.into(), notes: Vec::new(), fallback: None }
    }

    fn fastest(model: &Model, config: &EngineConfig) -> Result<Self, EngineError> {
        match gpu::open_if_faster(model, config)? {
            (Some(engine), _) => Ok(engine),
            (None, notes) => Ok(Self { notes, ..cpu::open(model, config)? }),
        }
    }

    fn open_onnx(source: &ModelSource, config: &EngineConfig) -> Result<Self, EngineError> {
        if !matches!(config.precision, Precision::Auto | Precision::F32) {
            return Err(EngineError::OnnxPrecision);
        }
        if config.incremental.is_some() {
            return Err(EngineError::Incremental { backend: "onnx" });
        }
        onnx::open(source, config.threads.unwrap_or_else(default_threads))
    }

    /// The engine, if it is an `E`: for tools that measure one particular engine.
    pub fn downcast_ref<E: Engine>(&self) -> Option<&E> {
        let engine: &dyn Any = &*self.engine;
        engine.downcast_ref()
    }

    /// Replaces a GPU engine that failed by the CPU engine. `false` if there is no fallback, or the error is not a failure of the
    /// engine.
    fn fall_back(&mut self, error: &ExtractError) -> bool {
        let failed = matches!(error, ExtractError::Failed { .. });
        let Some(Fallback { model, config }) = self.fallback.take_if(|_| failed) else { return false };
        match cpu::load(&model, config) {
            Ok(engine) => {
                self.notes.push(format!("{}; continuing on the CPU", chain(error)));
                self.engine = Box::new(engine);
                true
            }
            Err(second) => {
                self.notes.push(format!("falling back to the CPU failed: {}", chain(&second)));
                false
            }
        }
    }
}

fn needs_model_file(backend: &'static str, path: &Path) -> EngineError {
    EngineError::NeedsModelFile { backend, path: path.display().to_string() }
}

impl fmt::Display for SelectedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts().fmt(f)
    }
}

impl Engine for SelectedEngine {
    fn facts(&self) -> EngineFacts {
        self.engine.facts()
    }

    fn reason(&self) -> &str {
        &self.reason
    }

    fn stage_times(&self) -> Vec<(&'static str, Duration)> {
        self.engine.stage_times()
    }

    fn set_profiling(&mut self, on: bool) -> bool {
        self.engine.set_profiling(on)
    }

    fn recomputed_share(&self) -> Option<f64> {
        self.engine.recomputed_share()
    }

    fn take_notes(&mut self) -> Vec<String> {
        let mut notes = std::mem::take(&mut self.notes);
        notes.extend(self.engine.take_notes());
        notes
    }
}

impl Extractor for SelectedEngine {
    fn spec(&self) -> &VitSpec {
        self.engine.spec()
    }

    fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError> {
        match self.engine.extract(image, taps, out) {
            Err(error) if self.fall_back(&error) => self.engine.extract(image, taps, out),
            outcome => outcome,
        }
    }

    fn extract_batch(
        &mut self,
        images: &[ImageView<'_>],
        taps: &Taps,
        out: &mut [Features],
    ) -> Result<(), ExtractError> {
        match self.engine.extract_batch(images, taps, out) {
            Err(error) if self.fall_back(&error) => self.engine.extract_batch(images, taps, out),
            outcome => outcome,
        }
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::engine::gpu::tests::gpu_under_test;
    use dinov2_wgpu::{GpuConfig, GpuPrecision, WgpuEngine};

    #[test]
    fn the_cpu_takes_over_where_the_gpu_fails() {
        let Some(gpu) = gpu_under_test(&GpuConfig::default()) else { return };
        let model = dinov2_bundled::bundled_model().unwrap();
        let (config, _) = cpu::cpu_config(&model, &EngineConfig::default()).unwrap();
        let failing = WgpuEngine::new(&gpu, &model, GpuPrecision::F32).unwrap();
        let fallback = Some(Fallback { model, config });
        let mut engine = SelectedEngine { fallback, ..SelectedEngine::new_with(failing, "a test") };
        gpu.shut_down();
        let pixels = [127; 14 * 14 * 3];
        let mut features = Features::new();
        let off_grid = ImageView::new(&pixels[..13 * 14 * 3], 13, 14).unwrap();
        assert!(engine.extract(off_grid, &Taps::none(), &mut features).is_err());
        assert_eq!(engine.facts().backend, "wgpu", "a wrong image is no fault of the GPU");
        let image = ImageView::new(&pixels, 14, 14).unwrap();
        engine.extract(image, &Taps::none(), &mut features).unwrap();
        assert_eq!(engine.facts().backend, "cpu");
        assert!(features.tokens().iter().all(|value| value.is_finite()));
        let notes = engine.take_notes();
        assert!(
            notes.len() == 1 && notes[0].contains("lost") && notes[0].ends_with("continuing on the CPU"),
            "{notes:?}"
        );
        assert!(engine.take_notes().is_empty());
    }
}
