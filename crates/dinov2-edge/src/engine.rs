//! The choice of an engine: made once, from the model and what the user asks for.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dinov2_core::{ExtractError, Extractor, Features, ImageView, Taps, VitSpec};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision, Incremental, Isa, LoadError, Stage, default_threads};
use dinov2_kernels::gemm_half::HalfFormat;
use dinov2_weights::{Model, ModelError, Quantisation};

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
    /// The fastest that meets its gate for this model file on this CPU: [`Precision::choose`].
    Auto,
    /// 32-bit floats throughout; reduced storage is expanded when the model is loaded.
    F32,
    /// bf16 matrices; the CPU engine only, on instruction sets whose 16-bit floats these are.
    Bf16,
    /// f16 matrices, likewise.
    F16,
    /// 8-bit matrices with dynamic scales per token; the CPU engine only.
    Int8,
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
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::Int8),
            _ => Err(ChoiceError {
                what: "precision",
                expected: "auto, f32, bf16, f16 or int8 (what int4 files run in)",
                got: word.into(),
            }),
        }
    }
}

fn weights_of(quantisation: &Quantisation) -> &'static str {
    if quantisation.int4_group.is_some() { " with int4 weights" } else { "" }
}

impl Precision {
    /// What `Auto` becomes on the CPU engine, and why: int8 if `dinov2-edge quantize` measured for this very file that it
    /// meets the gate ([`dinov2_weights::Quantisation::meets_gate`]), else f32.
    pub fn choose(model: &Model) -> (CpuPrecision, String) {
        match &model.metadata().quantisation {
            Some(quantisation) if quantisation.meets_gate() => {
                let least = quantisation.fidelity.iter().map(|fidelity| fidelity.median).fold(1.0, f64::min);
                let of = weights_of(quantisation);
                (
                    CpuPrecision::Int8,
                    format!("int8{of} meets its gate for this file (patch cosine median {least:.5})"),
                )
            }
            Some(quantisation) => {
                (CpuPrecision::F32, format!("int8{} misses its gate for this file", weights_of(quantisation)))
            }
            None => {
                let reason = "int8 was not measured for this file (dinov2-edge quantize does)";
                (CpuPrecision::F32, reason.into())
            }
        }
    }

    fn on_cpu(self, model: &Model, isa: Isa) -> Result<CpuPrecision, EngineError> {
        Ok(match self {
            Self::Auto => Self::choose(model).0,
            Self::F32 => CpuPrecision::F32,
            Self::Bf16 if isa.half_format() == HalfFormat::Bf16 => CpuPrecision::Half,
            Self::F16 if isa.half_format() == HalfFormat::F16 => CpuPrecision::Half,
            Self::Bf16 | Self::F16 => {
                return Err(EngineError::HalfFormat { isa: isa.name(), format: isa.half_format().name() });
            }
            Self::Int8 => CpuPrecision::Int8,
        })
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
    /// Instruction set of the CPU engine; `None` for the best that this CPU has.
    pub isa: Option<Isa>,
    /// Reuse from frame to frame; the CPU engine only.
    pub incremental: Option<Incremental>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            precision: Precision::Auto,
            threads: None,
            isa: None,
            incremental: None,
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
    /// The CPU engine was asked to run an ONNX file.
    #[error(
        "backend cpu: expected a model file, got an ONNX file (make one: dinov2-edge convert {path} -o MODEL.safetensors)"
    )]
    CpuNeedsModelFile {
        /// The ONNX file.
        path: String,
    },
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
    /// The ONNX engine was asked to reuse what it computed.
    #[error("incremental: expected backend cpu, got onnx")]
    OnnxIncremental,
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
        match (config.backend, weights) {
            (Backend::Auto | Backend::Cpu, Weights::Model(model)) => {
                let mut cpu = CpuConfig::with_threads(threads);
                cpu.isa = config.isa.unwrap_or(cpu.isa);
                cpu.precision = config.precision.on_cpu(model, cpu.isa)?;
                cpu.incremental = config.incremental;
                Ok(Self::Cpu(Box::new(CpuEngine::new(model, cpu)?)))
            }
            (Backend::Cpu, Weights::Onnx(path)) => {
                Err(EngineError::CpuNeedsModelFile { path: path.display().to_string() })
            }
            (Backend::Auto | Backend::Onnx, _)
                if !matches!(config.precision, Precision::Auto | Precision::F32) =>
            {
                Err(EngineError::OnnxPrecision)
            }
            (Backend::Auto | Backend::Onnx, _) if config.incremental.is_some() => {
                Err(EngineError::OnnxIncremental)
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
        match self {
            Self::Cpu(engine) => match engine.precision() {
                CpuPrecision::F32 => "f32",
                CpuPrecision::Half => engine.isa().half_format().name(),
                CpuPrecision::Int8 => "int8",
            },
            #[cfg(feature = "tract")]
            Self::Onnx(..) => "f32",
        }
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        match self {
            Self::Cpu(engine) => engine.threads(),
            #[cfg(feature = "tract")]
            Self::Onnx(_, threads) => *threads,
        }
    }

    /// Of an engine that reuses what it computed, the share of rows that the last frame computed anew.
    pub fn recomputed_share(&self) -> Option<f64> {
        match self {
            Self::Cpu(engine) => engine.recomputed_share(),
            #[cfg(feature = "tract")]
            Self::Onnx(..) => None,
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

    fn extract_batch(
        &mut self,
        images: &[ImageView<'_>],
        taps: &Taps,
        out: &mut [Features],
    ) -> Result<(), ExtractError> {
        match self {
            Self::Cpu(engine) => engine.extract_batch(images, taps, out),
            #[cfg(feature = "tract")]
            Self::Onnx(engine, _) => engine.extract_batch(images, taps, out),
        }
    }
}
