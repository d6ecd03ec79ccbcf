//! One side of a comparison: model, backend and precision, written `[MODEL:]BACKEND:PRECISION`.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dinov2_edge::{Backend, EngineConfig, Incremental, Precision, SelectedEngine};

use crate::args::open_weights;

/// A model and an engine: `[MODEL:]BACKEND:PRECISION`.
#[derive(Clone, Debug)]
pub(crate) struct EngineChoice {
    model: Option<PathBuf>,
    backend: Backend,
    precision: Precision,
    text: String,
}

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.rsplitn(3, ':');
        let precision = words.next().unwrap_or_default();
        let backend =
            words.next().ok_or_else(|| format!("expected [MODEL:]BACKEND:PRECISION, got {text:?}"))?;
        Ok(Self {
            model: words.next().map(PathBuf::from),
            backend: backend.parse().map_err(|error: <Backend as FromStr>::Err| error.to_string())?,
            precision: precision.parse().map_err(|error: <Precision as FromStr>::Err| error.to_string())?,
            text: text.into(),
        })
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl EngineChoice {
    /// Loads the engine. `default_model`: the model if the choice names none.
    pub(crate) fn load(
        &self,
        default_model: Option<&Path>,
        threads: Option<NonZeroUsize>,
    ) -> anyhow::Result<SelectedEngine> {
        self.load_with(default_model, threads, None)
    }

    /// Loads the engine; with `incremental` it reuses unchanged rows.
    pub(crate) fn load_incremental(
        &self,
        threads: Option<NonZeroUsize>,
        incremental: Option<Incremental>,
    ) -> anyhow::Result<SelectedEngine> {
        self.load_with(None, threads, incremental)
    }

    fn load_with(
        &self,
        default_model: Option<&Path>,
        threads: Option<NonZeroUsize>,
        incremental: Option<Incremental>,
    ) -> anyhow::Result<SelectedEngine> {
        let weights = open_weights(self.model.as_deref().or(default_model))?;
        let (backend, precision) = (self.backend, self.precision);
        let config = EngineConfig { backend, precision, threads, incremental, ..EngineConfig::default() };
        Ok(SelectedEngine::open(&weights, config)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_parsed_from_the_right() {
        let choice: EngineChoice = "dir:with/colon.safetensors:cpu:f32".parse().unwrap();
        assert_eq!(choice.model, Some(PathBuf::from("dir:with/colon.safetensors")));
        assert_eq!("onnx:auto".parse::<EngineChoice>().unwrap().backend, Backend::Onnx);
        for wrong in ["", "cpu", "cpu:", "cpu:f33", "gpu:f32"] {
            assert!(wrong.parse::<EngineChoice>().is_err(), "{wrong}");
        }
    }
}
