//! Models under evaluation: what the command line names, and the engine that runs it.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dinov2_core::{ExtractError, Extractor, Features, ImageView, Taps, VitSpec};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision};
use dinov2_weights::Model;

use super::{EvalError, ModelFacts};

/// A model file and the precision that it runs in: `PATH` or `PATH:PRECISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelChoice {
    path: PathBuf,
    precision: Option<CpuPrecision>,
}

/// Names of precisions; `half` is bf16 or f16, whichever the CPU supports.
const PRECISIONS: [(&str, CpuPrecision); 3] =
    [("f32", CpuPrecision::F32), ("half", CpuPrecision::Half), ("int8", CpuPrecision::Int8)];

fn word(precision: CpuPrecision) -> &'static str {
    PRECISIONS.iter().find(|(_, known)| *known == precision).map_or("?", |(word, _)| word)
}

impl FromStr for ModelChoice {
    type Err = String;

    /// Without a precision, int8 where `dinov2-edge quantize` measured that it meets its gate for the file, else f32.
    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.rsplit_once(':').and_then(|(path, precision)| {
            let found = PRECISIONS.iter().find(|(word, _)| *word == precision)?;
            Some((path, found.1))
        });
        let (path, precision) = match named {
            Some((path, precision)) => (path, Some(precision)),
            None => (text, None),
        };
        if path.is_empty() {
            return Err(format!("expected PATH or PATH:PRECISION (f32, half, int8), got {text:?}"));
        }
        Ok(Self { path: path.into(), precision })
    }
}

impl fmt::Display for ModelChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.precision.map_or(Ok(()), |precision| write!(f, ":{}", word(precision)))
    }
}

/// A model on an engine.
pub struct LoadedModel {
    facts: ModelFacts,
    engine: CpuEngine,
    features: Features,
    notes: Vec<String>,
}

impl ModelChoice {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The precision, if it was given.
    pub fn precision(&self) -> Option<CpuPrecision> {
        self.precision
    }

    /// Opens the file and reads its properties without unpacking weights.
    ///
    /// # Errors
    /// An invalid model file.
    pub fn facts(&self) -> Result<ModelFacts, EvalError> {
        self.open().map(|(_, _, facts)| facts)
    }

    fn open(&self) -> Result<(Model, CpuPrecision, ModelFacts), EvalError> {
        let model = Model::open(&self.path)?;
        let measured = model.metadata().quantization.as_ref().is_some_and(|measured| measured.meets_gate());
        let default = if measured { CpuPrecision::Int8 } else { CpuPrecision::F32 };
        let precision = self.precision.unwrap_or(default);
        let mut parameters = 0;
        for name in model.names() {
            parameters += model.tensor(name)?.shape.iter().map(|side| *side as u64).product::<u64>();
        }
        let stem = self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let spec = model.spec();
        let facts = ModelFacts {
            name: format!("{stem} {}", word(precision)),
            path: self.path.display().to_string(),
            precision: word(precision),
            architecture: spec.name(),
            dim: spec.dim,
            depth: spec.depth,
            patch_size: spec.patch_size,
            parameters,
            file_bytes: model.file_bytes(),
        };
        Ok((model, precision, facts))
    }

    /// Loads it; `threads`: `None` for one per physical core.
    ///
    /// # Errors
    /// An invalid model file, or one that the engine cannot load.
    pub fn load(&self, threads: Option<NonZeroUsize>) -> Result<LoadedModel, EvalError> {
        let (model, precision, facts) = self.open()?;
        let mut config = CpuConfig::default();
        config.precision = precision;
        config.threads = threads.unwrap_or(config.threads);
        let engine = CpuEngine::new(&model, config)?;
        Ok(LoadedModel { facts, engine, features: Features::new(), notes: Vec::new() })
    }
}

impl LoadedModel {
    /// Name for tables and progress.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Shape of the model.
    pub fn spec(&self) -> &VitSpec {
        self.engine.spec()
    }

    /// Threads in use.
    pub fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.engine.threads()).unwrap_or(NonZeroUsize::MIN)
    }

    /// The features of an image whose sides are multiples of the patch size; valid until the next call.
    ///
    /// # Errors
    /// An image off the patch grid, or a failure of the engine.
    pub fn features(&mut self, image: ImageView<'_>) -> Result<&Features, ExtractError> {
        self.engine.extract(image, &Taps::none(), &mut self.features)?;
        Ok(&self.features)
    }

    /// Adds a note to the figures.
    pub(super) fn note(&mut self, line: String) {
        self.notes.push(line);
    }

    /// Returns and clears the notes of the tasks so far, such as unreadable files.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_is_the_last_word_if_it_is_one() {
        let parse = |text: &str| text.parse::<ModelChoice>().unwrap();
        assert_eq!(parse("a/b.safetensors:int8").precision, Some(CpuPrecision::Int8));
        assert_eq!(parse("a/b.safetensors:int8").path(), Path::new("a/b.safetensors"));
        assert_eq!(parse("C:b.safetensors").precision, None);
        assert_eq!(parse("C:b.safetensors").path(), Path::new("C:b.safetensors"));
        assert_eq!(parse("x:half").to_string(), "x:half");
        assert!("".parse::<ModelChoice>().is_err() && ":f32".parse::<ModelChoice>().is_err());
    }
}
