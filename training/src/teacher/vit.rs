use candle_core::{DType, Device};
use dinov2_core::{PatchGrid, VitSpec};
use dinov2_weights::{Model, Normalisation};

use super::{Teacher, TeacherError, block_indices, grid_side, split, views};
use crate::data::Batch;
use crate::loss::Targets;
use crate::vit::{Images, Request, Vit, patches_of, read_parameters};

/// A teacher on candle: for GPUs, in bf16.
pub struct VitTeacher {
    vit: Vit,
    normalisation: Normalisation,
    /// Ascending indices of blocks, and for every tap of the recipe its place among them.
    blocks: Vec<usize>,
    order: Vec<usize>,
    device: Device,
}

impl VitTeacher {
    /// `blocks`: whose outputs are wanted, counted from 1.
    ///
    /// # Errors
    /// A model that cannot be read, a block that it does not have.
    pub fn new(model: &Model, dtype: DType, blocks: &[usize], device: &Device) -> Result<Self, TeacherError> {
        let wanted = block_indices(model.spec(), blocks)?;
        let mut ascending = wanted.clone();
        ascending.sort_unstable();
        ascending.dedup();
        let order = wanted.iter().filter_map(|block| ascending.binary_search(block).ok()).collect();
        Ok(Self {
            vit: Vit::new(model.spec().clone(), read_parameters(model, dtype, device)?),
            normalisation: model.metadata().preprocessing.normalisation(),
            blocks: ascending,
            order,
            device: device.clone(),
        })
    }
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
        let images = Images::new(&pixels.data, grid, patch_size, self.normalisation, &self.device)?;
        let tokens = self.vit.forward(&images, Request { taps: &self.blocks, mask: None })?;
        let (cls, patches) = split(&tokens.normed.to_dtype(DType::F32)?, tokens.prefix)?;
        let tap = |&place: &usize| {
            patches_of(&tokens.taps[place].to_dtype(DType::F32)?, tokens.prefix)?.contiguous()
        };
        let taps = self.order.iter().map(tap).collect::<candle_core::Result<_>>()?;
        Ok(Targets { cls, patches, taps, grid })
    }
}
