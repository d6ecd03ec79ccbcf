//! A teacher on candle, for GPUs.

use candle_core::{DType, Device, Tensor};
use dinov2_core::{PatchGrid, VitSpec};
use dinov2_weights::{Model, Normalisation};

use super::{Teacher, TeacherError, check_blocks, grid_side, split, views};
use crate::data::Batch;
use crate::loss::Targets;
use crate::ops::AttentionShape;
use crate::vit::{Images, Request, Vit, patches_of, read_parameters};

/// Default number of attention scores that a pass holds: 1 GiB in f32.
const MOST_SCORES: usize = 1 << 28;

/// A teacher on candle, for GPUs in bf16. It computes a batch in parts, so that large images need no more memory than small ones.
pub struct VitTeacher {
    vit: Vit,
    normalisation: Normalisation,
    /// Ascending blocks, and for every tap of the recipe its place among them.
    blocks: Vec<usize>,
    order: Vec<usize>,
    device: Device,
    most_scores: usize,
}

impl VitTeacher {
    /// `blocks`: those whose outputs are wanted.
    ///
    /// # Errors
    /// A model that cannot be read, a block that it does not have.
    pub fn new(model: &Model, dtype: DType, blocks: &[usize], device: &Device) -> Result<Self, TeacherError> {
        check_blocks(model.spec(), blocks)?;
        let mut ascending = blocks.to_vec();
        ascending.sort_unstable();
        ascending.dedup();
        let order = blocks.iter().filter_map(|block| ascending.binary_search(block).ok()).collect();
        Ok(Self {
            vit: Vit::new(model.spec().clone(), read_parameters(model, dtype, device)?),
            normalisation: model.metadata().preprocessing.normalisation(),
            blocks: ascending,
            order,
            device: device.clone(),
            most_scores: MOST_SCORES,
        })
    }

    /// Limits the attention scores (pairs of tokens, over images and heads) that a pass holds; at least those of one image.
    #[must_use]
    pub fn with_most_scores(self, most_scores: usize) -> Self {
        Self { most_scores, ..self }
    }

    /// Images of one pass.
    fn images_at_once(&self, grid: PatchGrid) -> usize {
        let (tokens, heads, head_dim) = (self.spec().tokens(grid), self.spec().heads, self.spec().head_dim());
        (self.most_scores / AttentionShape { batch: 1, tokens, heads, head_dim }.scores()).max(1)
    }

    /// `pixels`: of some of the images.
    fn part(&self, pixels: &[u8], grid: PatchGrid) -> candle_core::Result<Targets> {
        let images = Images::new(pixels, grid, self.spec().patch_size, self.normalisation, &self.device)?;
        let tokens = self.vit.forward(&images, Request { taps: &self.blocks, mask: None })?;
        let (cls, patches) = split(&tokens.normed.to_dtype(DType::F32)?, tokens.prefix)?;
        let tap = |&place: &usize| {
            patches_of(&tokens.taps[place].to_dtype(DType::F32)?, tokens.prefix)?.contiguous()
        };
        let taps = self.order.iter().map(tap).collect::<candle_core::Result<_>>()?;
        Ok(Targets { cls, patches, taps, grid })
    }
}

/// Concatenates the targets of parts.
fn join(parts: &[Targets], grid: PatchGrid) -> candle_core::Result<Targets> {
    let all = |of: &dyn Fn(&Targets) -> Tensor| Tensor::cat(&parts.iter().map(of).collect::<Vec<_>>(), 0);
    let taps = 0..parts.first().map_or(0, |part| part.taps.len());
    Ok(Targets {
        cls: all(&|part| part.cls.clone())?,
        patches: all(&|part| part.patches.clone())?,
        taps: taps.map(|tap| all(&|part| part.taps[tap].clone())).collect::<candle_core::Result<_>>()?,
        grid,
    })
}

impl Teacher for VitTeacher {
    fn spec(&self) -> &VitSpec {
        self.vit.spec()
    }

    fn targets(&mut self, batch: &Batch) -> Result<Targets, TeacherError> {
        let pixels = views(batch);
        let patch_size = self.spec().patch_size;
        let side = grid_side(pixels.side_px, patch_size)?;
        let grid = PatchGrid { rows: side, cols: side };
        let image = pixels.side_px * pixels.side_px * 3;
        let parts = pixels.data.chunks(self.images_at_once(grid) * image);
        let parts = parts.map(|part| self.part(part, grid)).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(join(&parts, grid)?)
    }
}
