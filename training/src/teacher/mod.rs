//! Teachers: sources of target features for batches.

mod cache;
mod engine;
mod vit;

use candle_core::Tensor;
use dinov2_core::{ExtractError, ImageError, VitSpec};
use dinov2_cpu::LoadError;
use dinov2_weights::ModelError;

use crate::data::{Batch, Pixels};
use crate::loss::Targets;
use crate::vit::ParameterError;

pub use cache::{
    CacheConfig, CacheError, CacheManifest, CacheProgress, CachedTeacher, Compression, write_cache,
};
pub use engine::EngineTeacher;
pub use vit::VitTeacher;

/// Errors of computing targets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TeacherError {
    /// The model file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An engine cannot load it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its tensors.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// Invalid pixels.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An engine cannot run it.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The device.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A cache of its features.
    #[error(transparent)]
    Cache(Box<CacheError>),
    /// A view whose side is no multiple of the patch size.
    #[error(
        "stages.views: expected sides that are multiples of the teacher's patch size {patch_size}, got {side_px}"
    )]
    Side {
        /// Patch size.
        patch_size: usize,
        /// Side of the views.
        side_px: usize,
    },
    /// A block that the teacher does not have.
    #[error("loss.taps: expected values of teacher_block in 0..={}, got {block}", depth - 1)]
    Block {
        /// Its blocks.
        depth: usize,
        /// The block in the recipe.
        block: usize,
    },
}

/// A frozen model, or a cache of its features.
pub trait Teacher: Send {
    /// Its shape.
    fn spec(&self) -> &VitSpec;

    /// The targets of a batch.
    ///
    /// # Errors
    /// Views of a wrong size, a device or file that fails.
    fn targets(&mut self, batch: &Batch) -> Result<Targets, TeacherError>;

    /// The targets of held-out images, whose batches count by `batch.step`. Without taps, which validation does not use.
    ///
    /// # Errors
    /// As [`Self::targets`].
    fn held_out(&mut self, batch: &Batch) -> Result<Targets, TeacherError> {
        Ok(Targets { taps: Vec::new(), ..self.targets(batch)? })
    }
}

/// The teacher's views of a batch.
fn views(batch: &Batch) -> &Pixels {
    batch.teacher.as_ref().unwrap_or(&batch.student)
}

/// Patches per side.
fn grid_side(side_px: usize, patch_size: usize) -> Result<usize, TeacherError> {
    if side_px == 0 || !side_px.is_multiple_of(patch_size) {
        return Err(TeacherError::Side { patch_size, side_px });
    }
    Ok(side_px / patch_size)
}

/// Refuses blocks that a model does not have.
fn check_blocks(spec: &VitSpec, blocks: &[usize]) -> Result<(), TeacherError> {
    match blocks.iter().find(|block| **block >= spec.depth) {
        Some(&block) => Err(TeacherError::Block { depth: spec.depth, block }),
        None => Ok(()),
    }
}

/// `patches` and `cls` of rows `[batch, n, dim]`, with registers left out.
fn split(tokens: &Tensor, prefix: usize) -> candle_core::Result<(Tensor, Tensor)> {
    let cls = tokens.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
    Ok((cls, crate::vit::patches_of(tokens, prefix)?.contiguous()?))
}
