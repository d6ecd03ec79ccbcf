//! The choice of an engine: made once, from the model and what the user asks for.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use dinov2_core::{ExtractError, Extractor, Features, ImageView, Taps, VitSpec};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision, Incremental, Isa, LoadError, Stage, default_threads};
use dinov2_weights::{Model, ModelError};
#[cfg(feature = "wgpu")]
use dinov2_wgpu::{GpuError, GpuPrecision, WgpuEngine};

use crate::choice::{Backend, Precision};
use crate::pipeline::PipelineEngine;

#[cfg(feature = "tract")]
use dinov2_onnx::{OnnxConfig, OnnxEngine, OnnxError};

/// Where the weights are.
#[derive(Debug)]
pub enum Weights {
    /// An open model file.
    Model(Box<Model>),
    /// An ONNX file, ours or a third party's.
    Onnx(PathBuf),
}

impl Weights {
    /// Opens a path: an ONNX file by its ending, anything else as a model file.
    ///
    /// # Errors
    /// A file that cannot be opened, or is no model file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
            return Ok(Self::Onnx(path.to_path_buf()));
        }
        Model::open(path).map(Self::from)
    }

    /// Path or label, for messages and metadata.
    pub fn label(&self) -> String {
        match self {
            Self::Model(model) => model.label().to_string(),
            Self::Onnx(path) => path.display().to_string(),
        }
    }

    /// Tells models apart whose features cannot be compared: the model's name with a hash of its file's header and of its smallest
    /// tensors; of an ONNX file, path, length and time of change. The same file gives the same words in every run.
    pub fn identity(&self) -> String {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Model(model) => {
                model.header_bytes().hash(&mut hasher);
                for name in ["cls_token", "norm.weight", "norm.bias"] {
                    let values = model.f32(name).unwrap_or_default();
                    values.iter().for_each(|value| value.to_bits().hash(&mut hasher));
                }
                format!("{} {:016x}", model.spec().name(), hasher.finish())
            }
            Self::Onnx(path) => {
                path.hash(&mut hasher);
                if let Ok(facts) = path.metadata() {
                    (facts.len(), facts.modified().ok()).hash(&mut hasher);
                }
                format!("ONNX {:016x}", hasher.finish())
            }
        }
    }
}

impl From<Model> for Weights {
    fn from(model: Model) -> Self {
        Self::Model(Box::new(model))
    }
}

/// What the user asks of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which engine.
    pub backend: Backend,
    /// Which arithmetic.
    pub precision: Precision,
    /// Threads; `None` for those of [`dinov2_cpu::CpuGrant::threads`].
    pub threads: Option<NonZeroUsize>,
    /// Instruction set of the CPU engine; `None` for the best that this CPU has.
    pub isa: Option<Isa>,
    /// Reuse from frame to frame; the CPU engine only.
    pub incremental: Option<Incremental>,
    /// Part of a GPU's name; `None` for the most capable one.
    pub gpu: Option<String>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            precision: Precision::Auto,
            threads: None,
            isa: None,
            incremental: None,
            gpu: None,
        }
    }
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The CPU engine cannot load the model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The ONNX engine cannot load the model.
    #[cfg(feature = "tract")]
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The GPU engine cannot be opened or cannot load the model.
    #[cfg(feature = "wgpu")]
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// An engine for model files was asked to run an ONNX file.
    #[error(
        "backend {backend}: expected a model file, got an ONNX file (make one: dinov2-edge convert {path} -o MODEL.safetensors)"
    )]
    NeedsModelFile {
        /// The backend.
        backend: &'static str,
        /// The ONNX file.
        path: String,
    },
    /// The GPU engine was asked for a precision that it does not have.
    #[error("precision: expected auto, f32, f16 or int8 for backend wgpu, got bf16")]
    GpuPrecision,
    /// The ONNX engine was asked for a precision that it does not have.
    #[error("precision: expected auto or f32 for backend onnx (the CPU engine has others, for model files)")]
    OnnxPrecision,
    /// The instruction set has other 16-bit floats.
    #[error("precision: the 16-bit floats of instruction set {isa} are {format}: use --precision {format}")]
    HalfFormat {
        /// Name of the instruction set.
        isa: &'static str,
        /// Name of its format.
        format: &'static str,
    },
    /// Another engine than the CPU's was asked to reuse what it computed.
    #[error("incremental: expected backend cpu, got {backend}")]
    Incremental {
        /// The backend.
        backend: &'static str,
    },
    /// Another engine than the CPU's was asked for an instruction set.
    #[error("isa: expected backend cpu, got {backend}")]
    Isa {
        /// The backend.
        backend: &'static str,
    },
    /// This build has no GPU engine.
    #[error("backend wgpu: this program was built without it (build with `--features wgpu`)")]
    WithoutWgpu,
    /// This build has no engine for ONNX files.
    #[error("backend onnx: this program was built without it (build with `--features tract`)")]
    WithoutTract,
}

/// The engine that a run uses, and why.
pub struct Engine {
    runner: Runner,
    reason: String,
    notes: Vec<String>,
    /// What takes over if the GPU fails; only where the backend was left to us.
    fallback: Option<Fallback>,
}

/// The engine itself.
pub enum Runner {
    /// [`Backend::Cpu`].
    Cpu(Box<CpuEngine>),
    /// [`Backend::Wgpu`].
    #[cfg(feature = "wgpu")]
    Wgpu(Box<WgpuEngine>),
    /// [`Backend::Onnx`], with its threads.
    #[cfg(feature = "tract")]
    Onnx(Box<OnnxEngine>, usize),
}

struct Fallback {
    model: Model,
    config: CpuConfig,
}

impl Fallback {
    fn load(self) -> Result<CpuEngine, LoadError> {
        CpuEngine::new(&self.model, self.config)
    }
}

impl Engine {
    /// Loads the weights into the engine that the configuration names.
    ///
    /// # Errors
    /// Weights that the engine cannot load, or an engine that this build lacks.
    pub fn new(weights: &Weights, config: EngineConfig) -> Result<Self, EngineError> {
        match (config.backend, weights) {
            (Backend::Auto, Weights::Model(model)) => Self::fastest(model, &config),
            (Backend::Cpu, Weights::Model(model)) => {
                let (cpu, reason) = cpu_config(model, &config)?;
                Ok(Self::with(Runner::Cpu(Box::new(CpuEngine::new(model, cpu)?)), reason))
            }
            (Backend::Wgpu, Weights::Model(model)) => Self::wgpu(model, &config),
            (Backend::Cpu, Weights::Onnx(path)) => Err(needs_model_file("cpu", path)),
            (Backend::Wgpu, Weights::Onnx(path)) => Err(needs_model_file("wgpu", path)),
            (Backend::Auto | Backend::Onnx, weights) => Self::onnx(weights, &config),
        }
    }

    fn with(runner: Runner, reason: String) -> Self {
        Self { runner, reason, notes: Vec::new(), fallback: None }
    }

    /// [`Backend::Auto`] for a model file.
    fn fastest(model: &Model, config: &EngineConfig) -> Result<Self, EngineError> {
        let (cpu, cpu_reason) = cpu_config(model, config)?;
        #[cfg(feature = "wgpu")]
        let (gpu, notes) = crate::comparison::gpu_if_faster(model, config, cpu);
        #[cfg(feature = "wgpu")]
        if let Some((engine, reason)) = gpu {
            let runner = Runner::Wgpu(Box::new(engine));
            let fallback = Some(Fallback { model: model.clone(), config: cpu });
            return Ok(Self { runner, reason, notes, fallback });
        }
        let engine = Self::with(Runner::Cpu(Box::new(CpuEngine::new(model, cpu)?)), cpu_reason);
        #[cfg(feature = "wgpu")]
        let engine = Self { notes, ..engine };
        Ok(engine)
    }

    #[cfg(feature = "wgpu")]
    fn wgpu(model: &Model, config: &EngineConfig) -> Result<Self, EngineError> {
        let backend = "wgpu";
        if config.incremental.is_some() {
            return Err(EngineError::Incremental { backend });
        }
        if config.isa.is_some() {
            return Err(EngineError::Isa { backend });
        }
        let gpu = crate::comparison::open_gpu(config)?;
        let precision = config.precision.on_gpu(model, gpu.facts().f16)?;
        let engine = WgpuEngine::new(&gpu, model, precision)?;
        Ok(Self::with(Runner::Wgpu(Box::new(engine)), "backend wgpu was asked for".into()))
    }

    #[cfg(not(feature = "wgpu"))]
    fn wgpu(_model: &Model, _config: &EngineConfig) -> Result<Self, EngineError> {
        Err(EngineError::WithoutWgpu)
    }

    fn onnx(weights: &Weights, config: &EngineConfig) -> Result<Self, EngineError> {
        let backend = "onnx";
        if !matches!(config.precision, Precision::Auto | Precision::F32) {
            return Err(EngineError::OnnxPrecision);
        }
        if config.incremental.is_some() {
            return Err(EngineError::Incremental { backend });
        }
        Self::tract(weights, config.threads.unwrap_or_else(default_threads))
    }

    #[cfg(feature = "tract")]
    fn tract(weights: &Weights, threads: NonZeroUsize) -> Result<Self, EngineError> {
        let config = OnnxConfig { threads };
        let (engine, reason) = match weights {
            Weights::Model(model) => (OnnxEngine::from_model(model, config)?, "backend onnx was asked for"),
            Weights::Onnx(path) => (OnnxEngine::open(path, config)?, "an ONNX file"),
        };
        Ok(Self::with(Runner::Onnx(Box::new(engine), threads.get()), reason.into()))
    }

    #[cfg(not(feature = "tract"))]
    fn tract(_weights: &Weights, _threads: NonZeroUsize) -> Result<Self, EngineError> {
        Err(EngineError::WithoutTract)
    }

    /// The engine itself.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// Why this engine in this precision.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What happened that the user should know: why a GPU is not used, or no longer. Yields each note once.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// `cpu`, `wgpu` or `onnx`.
    pub fn backend(&self) -> &'static str {
        match &self.runner {
            Runner::Cpu(_) => "cpu",
            #[cfg(feature = "wgpu")]
            Runner::Wgpu(_) => "wgpu",
            #[cfg(feature = "tract")]
            Runner::Onnx(..) => "onnx",
        }
    }

    /// The arithmetic in use.
    pub fn precision(&self) -> &'static str {
        match &self.runner {
            Runner::Cpu(engine) => match engine.precision() {
                CpuPrecision::F32 => "f32",
                CpuPrecision::Half => engine.isa().half_format().name(),
                CpuPrecision::Int8 => "int8",
            },
            #[cfg(feature = "wgpu")]
            Runner::Wgpu(engine) => match engine.precision() {
                GpuPrecision::F32 => "f32",
                GpuPrecision::F16 => "f16",
                GpuPrecision::Int8 => "int8",
            },
            #[cfg(feature = "tract")]
            Runner::Onnx(..) => "f32",
        }
    }

    /// Threads in use; of the GPU engine the caller's.
    pub fn threads(&self) -> usize {
        match &self.runner {
            Runner::Cpu(engine) => engine.threads(),
            #[cfg(feature = "wgpu")]
            Runner::Wgpu(_) => 1,
            #[cfg(feature = "tract")]
            Runner::Onnx(_, threads) => *threads,
        }
    }

    /// Of an engine that reuses what it computed, the share of rows that the last frame computed anew.
    pub fn recomputed_share(&self) -> Option<f64> {
        match &self.runner {
            Runner::Cpu(engine) => engine.recomputed_share(),
            #[cfg(any(feature = "wgpu", feature = "tract"))]
            _ => None,
        }
    }

    /// Where the last frame's time went, in milliseconds; empty for an engine that does not tell. The GPU engine tells of its
    /// stages with [`Self::set_profiling`], without it of the host's work.
    pub fn stage_ms(&self) -> Vec<(&'static str, f64)> {
        match &self.runner {
            Runner::Cpu(engine) => {
                let times = engine.stage_times();
                Stage::ALL.iter().map(|&stage| (stage.name(), times.get(stage).as_secs_f64() * 1e3)).collect()
            }
            #[cfg(feature = "wgpu")]
            Runner::Wgpu(engine) => crate::comparison::stage_ms(engine),
            #[cfg(feature = "tract")]
            Runner::Onnx(..) => Vec::new(),
        }
    }

    /// Turns the timing of stages on where it costs time; returns whether it does on this engine, so that frames timed as a
    /// whole and frames timed by stages are better kept apart.
    pub fn set_profiling(&mut self, on: bool) -> bool {
        match &mut self.runner {
            #[cfg(feature = "wgpu")]
            Runner::Wgpu(engine) => {
                engine.set_profiling(on);
                true
            }
            _ => {
                let _ = on;
                false
            }
        }
    }

    /// Replaces a GPU that failed by the CPU, where the backend was left to us; `false` if nothing can be done.
    fn fall_back(&mut self, error: &ExtractError) -> bool {
        let failed = matches!(error, ExtractError::Engine(_));
        let Some(fallback) = self.fallback.take_if(|_| failed) else { return false };
        match fallback.load() {
            Ok(engine) => {
                self.notes.push(format!("{error}; going on with the CPU"));
                self.runner = Runner::Cpu(Box::new(engine));
                true
            }
            Err(second) => {
                self.notes.push(format!("the CPU cannot take over: {second}"));
                false
            }
        }
    }

    fn extractor(&mut self) -> &mut dyn Extractor {
        match &mut self.runner {
            Runner::Cpu(engine) => engine.as_mut(),
            #[cfg(feature = "wgpu")]
            Runner::Wgpu(engine) => engine.as_mut(),
            #[cfg(feature = "tract")]
            Runner::Onnx(engine, _) => engine.as_mut(),
        }
    }
}

/// Arithmetic and threads of the CPU engine, and the reason for the arithmetic.
fn cpu_config(model: &Model, config: &EngineConfig) -> Result<(CpuConfig, String), EngineError> {
    let mut cpu = CpuConfig::with_threads(config.threads.unwrap_or_else(default_threads));
    cpu.isa = config.isa.unwrap_or(cpu.isa);
    cpu.precision = config.precision.on_cpu(model, cpu.isa)?;
    cpu.incremental = config.incremental;
    let reason = match config.precision {
        Precision::Auto => Precision::choose(model).1,
        asked => format!("{asked:?} was asked for").to_lowercase(),
    };
    Ok((cpu, reason))
}

fn needs_model_file(backend: &'static str, path: &Path) -> EngineError {
    EngineError::NeedsModelFile { backend, path: path.display().to_string() }
}

impl fmt::Display for Engine {
    /// `cpu f32 (avx2), 2 threads` or `wgpu f16 (NVIDIA Orin)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = match &self.runner {
            Runner::Cpu(engine) => engine.isa().name(),
            #[cfg(feature = "wgpu")]
            Runner::Wgpu(engine) => {
                return write!(f, "{} {} ({})", self.backend(), self.precision(), engine.gpu().facts().name);
            }
            #[cfg(feature = "tract")]
            Runner::Onnx(..) => "tract",
        };
        let plural = if self.threads() == 1 { "" } else { "s" };
        write!(f, "{} {} ({detail}), {} thread{plural}", self.backend(), self.precision(), self.threads())
    }
}

impl PipelineEngine for Engine {
    fn take_notes(&mut self) -> Vec<String> {
        Self::take_notes(self)
    }

    fn recomputed_share(&self) -> Option<f64> {
        Self::recomputed_share(self)
    }
}

impl Extractor for Engine {
    fn spec(&self) -> &VitSpec {
        match &self.runner {
            Runner::Cpu(engine) => engine.spec(),
            #[cfg(feature = "wgpu")]
            Runner::Wgpu(engine) => engine.spec(),
            #[cfg(feature = "tract")]
            Runner::Onnx(engine, _) => engine.spec(),
        }
    }

    fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError> {
        match self.extractor().extract(image, taps, out) {
            Err(error) if self.fall_back(&error) => self.extractor().extract(image, taps, out),
            outcome => outcome,
        }
    }

    fn extract_batch(
        &mut self,
        images: &[ImageView<'_>],
        taps: &Taps,
        out: &mut [Features],
    ) -> Result<(), ExtractError> {
        match self.extractor().extract_batch(images, taps, out) {
            Err(error) if self.fall_back(&error) => self.extractor().extract_batch(images, taps, out),
            outcome => outcome,
        }
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::comparison::tests::gpu_under_test;
    use dinov2_wgpu::GpuConfig;

    #[test]
    fn the_cpu_takes_over_where_the_gpu_fails() {
        let Some(gpu) = gpu_under_test(&GpuConfig::default()) else { return };
        let model = dinov2_bundled::bundled_model().unwrap();
        let (config, _) = cpu_config(&model, &EngineConfig::default()).unwrap();
        let runner = Runner::Wgpu(Box::new(WgpuEngine::new(&gpu, &model, GpuPrecision::F32).unwrap()));
        let fallback = Some(Fallback { model, config });
        let mut engine = Engine { fallback, ..Engine::with(runner, "a test".into()) };
        gpu.shut_down();
        let pixels = [127; 14 * 14 * 3];
        let mut features = Features::new();
        let off_grid = ImageView::new(&pixels[..13 * 14 * 3], 13, 14).unwrap();
        assert!(engine.extract(off_grid, &Taps::none(), &mut features).is_err());
        assert_eq!(engine.backend(), "wgpu", "a wrong image is no fault of the GPU");
        let image = ImageView::new(&pixels, 14, 14).unwrap();
        engine.extract(image, &Taps::none(), &mut features).unwrap();
        assert_eq!(engine.backend(), "cpu");
        assert!(features.tokens().iter().all(|value| value.is_finite()));
        let notes = engine.take_notes();
        assert!(
            notes.len() == 1 && notes[0].contains("lost") && notes[0].ends_with("going on with the CPU"),
            "{notes:?}"
        );
        assert!(engine.take_notes().is_empty());
    }
}
