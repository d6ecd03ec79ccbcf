//! A build without the feature `wgpu`.

use dinov2_weights::Model;

use super::{EngineConfig, EngineError, SelectedEngine};

pub(super) fn open(_: &Model, _: &EngineConfig) -> Result<SelectedEngine, EngineError> {
    Err(EngineError::WithoutWgpu)
}

pub(super) fn open_if_faster(
    _: &Model,
    _: &EngineConfig,
) -> Result<(Option<SelectedEngine>, Vec<String>), EngineError> {
    Ok((None, Vec::new()))
}
