//! A teacher on the runtime's CPU engine.

use candle_core::{Device, Tensor};
use dinov2_core::{Extractor, Features, ImageView, PatchGrid, Tap, Taps, VitSpec};
use dinov2_cpu::{CpuConfig, CpuEngine};
use dinov2_weights::Model;

use super::{Teacher, TeacherError, check_blocks, grid_side, split, views};
use crate::data::{Batch, Pixels};
use crate::loss::Targets;
use crate::vit::patches_of;

/// A teacher on the runtime's CPU engine, which is faster than candle on CPUs.
pub struct EngineTeacher {
    engine: CpuEngine,
    /// One per tap of the recipe, in its order.
    taps: Vec<Tap>,
    outputs: Vec<Features>,
    device: Device,
}

impl EngineTeacher {
    /// `blocks`: those whose outputs are wanted. Targets are put on `device`.
    ///
    /// # Errors
    /// A model that cannot be loaded, a block that it does not have.
    pub fn new(
        model: &Model,
        config: CpuConfig,
        blocks: &[usize],
        device: &Device,
    ) -> Result<Self, TeacherError> {
        check_blocks(model.spec(), blocks)?;
        let taps = blocks.iter().map(|&layer| Tap::Layer { layer, norm: false }).collect();
        Ok(Self { engine: CpuEngine::new(model, config)?, taps, outputs: Vec::new(), device: device.clone() })
    }

    /// Runs every image of a batch.
    fn run(&mut self, pixels: &Pixels) -> Result<PatchGrid, TeacherError> {
        let side = grid_side(pixels.side_px, self.engine.spec().patch_size)?;
        let images: Vec<ImageView<'_>> = pixels
            .images()
            .map(|image| ImageView::new(image, pixels.side_px, pixels.side_px))
            .collect::<Result<_, _>>()?;
        self.outputs.resize_with(images.len(), Features::new);
        let taps = Taps::new(self.taps.iter().copied());
        self.engine.extract_batch(&images, &taps, &mut self.outputs)?;
        Ok(PatchGrid { rows: side, cols: side })
    }

    /// `[batch, n, dim]` of what `part` reads from an image's features.
    fn gather<'a>(&'a self, part: impl Fn(&'a Features) -> &'a [f32]) -> candle_core::Result<Tensor> {
        let numbers = self.outputs.iter().map(part).collect::<Vec<_>>().concat();
        Tensor::from_vec(numbers, (self.outputs.len() * self.tokens(), self.engine.spec().dim), &Device::Cpu)?
            .reshape((self.outputs.len(), self.tokens(), ()))?
            .to_device(&self.device)
    }

    fn tokens(&self) -> usize {
        self.outputs.first().map_or(0, |features| self.engine.spec().tokens(features.grid()))
    }
}

impl Teacher for EngineTeacher {
    fn spec(&self) -> &VitSpec {
        self.engine.spec()
    }

    fn targets(&mut self, batch: &Batch) -> Result<Targets, TeacherError> {
        let grid = self.run(views(batch))?;
        let prefix = self.spec().prefix_tokens();
        let (cls, patches) = split(&self.gather(Features::tokens)?, prefix)?;
        let mut taps = Vec::with_capacity(self.taps.len());
        for &tap in &self.taps {
            let tokens = self.gather(|features| features.tap(tap).unwrap_or_default())?;
            taps.push(patches_of(&tokens, prefix)?.contiguous()?);
        }
        Ok(Targets { cls, patches, taps, grid })
    }
}
