//! Opens the engine for ONNX files, tract.

use std::num::NonZeroUsize;

use dinov2_onnx::{OnnxConfig, OnnxEngine};

use super::{EngineError, SelectedEngine};
use crate::ModelSource;

pub(super) fn open(source: &ModelSource, threads: NonZeroUsize) -> Result<SelectedEngine, EngineError> {
    let config = OnnxConfig { threads };
    let (engine, reason) = match source {
        ModelSource::Model(model) => (OnnxEngine::from_model(model, config), "backend onnx was requested"),
        ModelSource::Onnx(path) => (OnnxEngine::open(path, config), "the model is an ONNX file"),
    };
    Ok(SelectedEngine::new_with(engine.map_err(EngineError::load)?, reason))
}
