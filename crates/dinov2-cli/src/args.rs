//! Arguments that several commands share.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::hub::{HubConfig, find_local};
use dinov2_edge::io::Frame;
use dinov2_edge::weights::Model;
use dinov2_edge::{Backend, EngineConfig, Incremental, Isa, ModelSource, Precision, SelectedEngine};
use dinov2_files::{Inputs, Kind, Replace, Target, shown};

/// Name of the bundled model.
pub(crate) const BUNDLED_NAME: &str = "vits14-focus-int8";
/// Maximum of `--threads`.
const MAX_THREADS: usize = 1024;

/// Model and engine.
#[derive(clap::Args, Clone)]
pub(crate) struct EngineArgs {
    /// Model file, ONNX file, or name of a pulled model [default: the bundled model]
    #[arg(long, short, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// Engine: auto, cpu, wgpu or onnx
    #[arg(long, default_value = "auto")]
    pub(crate) backend: Backend,
    /// Arithmetic: auto, f32, bf16, f16 or int8
    #[arg(long, default_value = "auto")]
    pub(crate) precision: Precision,
    /// Number of threads [default: one per available core, limited by the CPU quota]
    #[arg(long, value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Instruction set of the CPU engine, for measurements and diagnosis [default: the best of this CPU]
    #[arg(long, value_name = "NAME", value_parser = isa)]
    pub(crate) isa: Option<Isa>,
    /// Part of the name of the GPU to use [default: the most capable one; `doctor` lists them]
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: Option<String>,
}

/// Reuse of rows from frame to frame.
#[derive(clap::Args, Clone)]
pub(crate) struct ReuseArgs {
    /// For a static camera: reuse token rows whose input changes by at most this, relative to its norm (0: exact)
    #[arg(long, value_name = "THRESHOLD", value_parser = threshold)]
    incremental: Option<f32>,
    /// With --incremental, recompute everything once in this many frames
    #[arg(long, value_name = "FRAMES", default_value_t = Incremental::REFRESH, requires = "incremental")]
    refresh: NonZeroUsize,
}

impl ReuseArgs {
    pub(crate) fn config(&self) -> Option<Incremental> {
        self.incremental.and_then(|threshold| Incremental::new(threshold, self.refresh))
    }
}

impl EngineArgs {
    pub(crate) fn config(&self) -> EngineConfig {
        EngineConfig {
            backend: self.backend,
            precision: self.precision,
            threads: self.threads,
            isa: self.isa,
            incremental: None,
            gpu: self.gpu.clone(),
        }
    }

    /// Opens the model and loads it into the engine.
    pub(crate) fn load(&self) -> anyhow::Result<(ModelSource, SelectedEngine)> {
        self.load_incremental(None)
    }

    /// As [`Self::load`]; with `incremental` the engine reuses unchanged rows.
    pub(crate) fn load_incremental(
        &self,
        incremental: Option<Incremental>,
    ) -> anyhow::Result<(ModelSource, SelectedEngine)> {
        let weights = open_weights(self.model.as_deref())?;
        let engine = SelectedEngine::open(&weights, EngineConfig { incremental, ..self.config() })?;
        Ok((weights, engine))
    }
}

/// Converts `--force` to the rule of what an output may replace.
pub(crate) fn replace(force: bool) -> Replace {
    if force { Replace::AnyFile } else { Replace::SameKind }
}

/// The file of a frame, or its name, for messages.
pub(crate) fn source_of(frame: &Frame) -> String {
    frame.path.as_deref().map_or_else(|| frame.name.clone(), shown)
}

/// The target of a single output file, checked before the work begins.
pub(crate) fn target(
    output: &Path,
    inputs: impl IntoIterator<Item = PathBuf>,
    force: bool,
    kind: Kind,
) -> anyhow::Result<Target> {
    if output.is_dir() {
        return Err(crate::usage(format_args!("--output: expected a file, got a folder: {}", shown(output))));
    }
    let target = Target::new(output).never_over(&Inputs::new(inputs)).replacing(replace(force));
    target.check(kind)?;
    Ok(target)
}

/// The file of a named model, to protect it from being replaced by an output.
pub(crate) fn model_file(model: Option<&Path>) -> Option<PathBuf> {
    model.map(resolve)
}

pub(crate) fn threads(word: &str) -> Result<NonZeroUsize, String> {
    let count: NonZeroUsize = word.parse().map_err(|_| format!("expected 1..={MAX_THREADS}"))?;
    if count.get() <= MAX_THREADS { Ok(count) } else { Err(format!("expected 1..={MAX_THREADS}")) }
}

fn threshold(word: &str) -> Result<f32, String> {
    let checked =
        word.parse().ok().filter(|&threshold| Incremental::new(threshold, Incremental::REFRESH).is_some());
    checked.ok_or_else(|| "expected a number, 0 or larger".into())
}

fn isa(word: &str) -> Result<Isa, String> {
    let names = || Isa::available().map(Isa::name).collect::<Vec<_>>().join(", ");
    Isa::by_name(word)
        .ok_or_else(|| format!("expected an instruction set of this CPU ({}), got {word:?}", names()))
}

/// Opens a path, or the pulled model of that name. The error for a checkpoint names the command that converts it.
pub(crate) fn open_weights(model: Option<&Path>) -> anyhow::Result<ModelSource> {
    let Some(path) = model else { return Ok(bundled_model()?.into()) };
    let found = resolve(path);
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    if found.is_dir() || matches!(ending, "pth" | "pt" | "bin") {
        let path = path.display();
        anyhow::bail!(
            "model: expected a model file, got a checkpoint (make one: dinov2-edge convert {path} -o MODEL.safetensors): {path}"
        );
    }
    if !found.exists() {
        anyhow::bail!(
            "model: expected a file or the name of a pulled model (see `dinov2-edge models`), got {:?}",
            path.display().to_string()
        );
    }
    Ok(ModelSource::open(&found)?)
}

/// The path, or the file of the pulled model of that name if the path does not exist.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    let pulled = || find_local(&HubConfig::from_env().ok()?.models, path.to_str()?);
    if path.exists() { path.to_path_buf() } else { pulled().unwrap_or_else(|| path.to_path_buf()) }
}

/// The bundled model.
pub(crate) fn bundled_model() -> anyhow::Result<Model> {
    #[cfg(feature = "bundled-model")]
    return Ok(dinov2_bundled::bundled_model()?);
    #[cfg(not(feature = "bundled-model"))]
    anyhow::bail!("model: expected --model (this program was built without a bundled model)");
}
