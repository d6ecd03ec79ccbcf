//! Errors of pruning.

use dinov2_core::{ExtractError, ImageError};
use dinov2_cpu::LoadError;
use dinov2_weights::ModelError;

use crate::vit::ParameterError;

/// Errors of pruning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PruneError {
    /// A shape that is no part of the model's.
    #[error("student: {0}")]
    Shape(String),
    /// The model file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its tensors.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// The engine cannot load it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Invalid pixels.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The engine cannot run it.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The device.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
