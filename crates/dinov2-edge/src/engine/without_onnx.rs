//! A build without the feature `tract`.

use std::num::NonZeroUsize;

use super::{EngineError, SelectedEngine};
use crate::ModelSource;

pub(super) fn open(_: &ModelSource, _: NonZeroUsize) -> Result<SelectedEngine, EngineError> {
    Err(EngineError::WithoutTract)
}
