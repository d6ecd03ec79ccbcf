//! The choice of an engine: made once, from the model and what the user asks for.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dinov2_core::{ExtractError, Extractor, Features, ImageView, Taps, VitSpec};
use dinov2_cpu::{CpuConfig, CpuEngine, LoadError, Stage, default_threads};
use dinov2_weights::{Model, ModelError};

#[cfg(feature = "tract")]
use dinov2_onnx::{OnnxConfig, OnnxEngine, OnnxError};

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The fastest that runs this model: cpu for a model file, onnx for an ONNX file.
    Auto,
    /// The native CPU engine.
    Cpu,
    /// tract, running an ONNX file or a model file exported on the fly; needs the feature `tract`.
    Onnx,
}

/// Which arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// The fastest that keeps the features exact: f32.
    Auto,
    /// 32-bit floats throughout; reduced storage is expanded when the model is loaded.
    F32,
}

/// A word that names no backend or precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, got {got:?}")]
pub struct ChoiceError {
    what: &'static str,
    expected: &'static str,
    got: String,
}

impl FromStr for Backend {
    type Err = ChoiceError;

    fn from_str(word: &str) -> Result<Self, ChoiceError> {
        match word {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "onnx" => Ok(Self::Onnx),
            _ => Err(ChoiceError { what: "backend", expected: "auto, cpu or onnx", got: word.into() }),
        }
    }
}

impl FromStr for Precision {
    type Err = ChoiceError;

    fn from_str(word: &str) -> Result<Self, ChoiceError> {
        match word {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            _ => Err(ChoiceError { what: "precision", expected: "auto or f32", got: word.into() }),
        }
    }
}

/// Where the weights are.
#[derive(Debug)]
pub enum Weights {
    /// An open model file.
    Model(Box<Model>),
    /// An ONNX file, ours or a third party's.
    Onnx(PathBuf),
}

impl Weights {
    /// Opens a path: an ONNX file by its ending, anything else as a model file. Without a path, the bundled model.
    ///
    /// # Errors
    /// A file that cannot be opened, or is no model file.
    pub fn open(path: Option<&Path>) -> Result<Self, ModelError> {
        match path {
            None => crate::bundled_model().map(Box::new).map(Self::Model),
            Some(path) if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) => {
                Ok(Self::Onnx(path.to_path_buf()))
            }
            Some(path) => Model::open(path).map(Box::new).map(Self::Model),
        }
    }

    /// Path or label, for messages and metadata.
    pub fn label(&self) -> String {
        match self {
            Self::Model(model) => model.label().to_string(),
            Self::Onnx(path) => path.display().to_string(),
        }
    }
}

/// What the user asks of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Which engine.
    pub backend: Backend,
    /// Which arithmetic.
    pub precision: Precision,
    /// Threads; `None` for one per physical core.
    pub threads: Option<NonZeroUsize>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { backend: Backend::Auto, precision: Precision::Auto, threads: None }
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
    /// The CPU engine was asked to run an ONNX file.
    #[error(
        "backend cpu: expected a model file, got an ONNX file (make one: dinov2-edge convert {path} -o MODEL.safetensors)"
    )]
    CpuNeedsModelFile {
        /// The ONNX file.
        path: String,
    },
    /// This build has no engine for ONNX files.
    #[error("backend onnx: this program was built without it (build with `--features tract`)")]
    WithoutTract,
}

/// The engine that a run uses.
pub enum Engine {
    /// [`Backend::Cpu`].
    Cpu(Box<CpuEngine>),
    /// [`Backend::Onnx`].
    #[cfg(feature = "tract")]
    Onnx(Box<OnnxEngine>, usize),
}

impl Engine {
    /// Loads the weights into the engine that the configuration names.
    ///
    /// # Errors
    /// Weights that the engine cannot load, or an engine that this build lacks.
    pub fn new(weights: &Weights, config: EngineConfig) -> Result<Self, EngineError> {
        let threads = config.threads.unwrap_or_else(default_threads);
        let (Precision::Auto | Precision::F32) = config.precision;
        match (config.backend, weights) {
            (Backend::Auto | Backend::Cpu, Weights::Model(model)) => {
                let engine = CpuEngine::new(model, CpuConfig::with_threads(threads))?;
                Ok(Self::Cpu(Box::new(engine)))
            }
            (Backend::Cpu, Weights::Onnx(path)) => {
                Err(EngineError::CpuNeedsModelFile { path: path.display().to_string() })
            }
            (Backend::Auto | Backend::Onnx, weights) => Self::onnx(weights, threads),
        }
    }

    #[cfg(feature = "tract")]
    fn onnx(weights: &Weights, threads: NonZeroUsize) -> Result<Self, EngineError> {
        let config = OnnxConfig { threads };
        let engine = match weights {
            Weights::Model(model) => OnnxEngine::from_model(model, config)?,
            Weights::Onnx(path) => OnnxEngine::open(path, config)?,
        };
        Ok(Self::Onnx(Box::new(engine), threads.get()))
    }

    #[cfg(not(feature = "tract"))]
    fn onnx(_weights: &Weights, _threads: NonZeroUsize) -> Result<Self, EngineError> {
        Err(EngineError::WithoutTract)
    }

    /// `cpu` or `onnx`.
    pub fn backend(&self) -> &'static str {
        match self {
            Self::Cpu(_) => "cpu",
            #[cfg(feature = "tract")]
            Self::Onnx(..) => "onnx",
        }
    }

    /// The arithmetic in use.
    pub fn precision(&self) -> &'static str {
        "f32"
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        match self {
            Self::Cpu(engine) => engine.threads(),
            #[cfg(feature = "tract")]
            Self::Onnx(_, threads) => *threads,
        }
    }

    /// Where the last frame's time went, in milliseconds; empty for an engine that does not tell.
    pub fn stage_ms(&self) -> Vec<(&'static str, f64)> {
        match self {
            Self::Cpu(engine) => {
                let times = engine.stage_times();
                Stage::ALL.iter().map(|&stage| (stage.name(), times.get(stage).as_secs_f64() * 1e3)).collect()
            }
            #[cfg(feature = "tract")]
            Self::Onnx(..) => Vec::new(),
        }
    }
}

impl fmt::Display for Engine {
    /// `cpu f32 (avx2), 2 threads`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = match self {
            Self::Cpu(engine) => engine.isa().name(),
            #[cfg(feature = "tract")]
            Self::Onnx(..) => "tract",
        };
        let plural = if self.threads() == 1 { "" } else { "s" };
        write!(f, "{} {} ({detail}), {} thread{plural}", self.backend(), self.precision(), self.threads())
    }
}

impl Extractor for Engine {
    fn spec(&self) -> &VitSpec {
        match self {
            Self::Cpu(engine) => engine.spec(),
            #[cfg(feature = "tract")]
            Self::Onnx(engine, _) => engine.spec(),
        }
    }

    fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError> {
        match self {
            Self::Cpu(engine) => engine.extract(image, taps, out),
            #[cfg(feature = "tract")]
            Self::Onnx(engine, _) => engine.extract(image, taps, out),
        }
    }
}
