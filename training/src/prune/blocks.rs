//! Which blocks to keep: greedily, each time the block goes without which the patch tokens change least.

use candle_core::{DType, Device, Tensor};
use dinov2_core::PatchGrid;
use dinov2_weights::Model;

use super::PruneError;
use super::slice::keep_blocks;
use crate::data::Pixels;
use crate::loss::cosine;
use crate::vit::{Images, Request, Vit, read_parameters};

/// Images per candidate: there are some `depth²/2` candidates.
const MOST_IMAGES: usize = 12;

/// The `depth` blocks to keep, ascending.
pub(super) fn choose(
    model: &Model,
    depth: usize,
    images: &Pixels,
    progress: &mut dyn FnMut(String),
) -> Result<Vec<usize>, PruneError> {
    let mut kept: Vec<usize> = (0..model.spec().depth).collect();
    if depth == kept.len() {
        return Ok(kept);
    }
    let vit = Vit::new(model.spec().clone(), read_parameters(model, DType::F32, &Device::Cpu)?);
    let images = normalised(model, images)?;
    let want = tokens(&vit, &kept, &images)?;
    while kept.len() > depth {
        let mut best = (f64::NEG_INFINITY, 0);
        for at in 0..kept.len() {
            let mut candidate = kept.clone();
            candidate.remove(at);
            let score = agreement(&tokens(&vit, &candidate, &images)?, &want)?;
            if score > best.0 {
                best = (score, at);
            }
        }
        let (score, at) = best;
        let block = kept.remove(at);
        progress(format!("without block {block}: patch cosine {score:.4}, {} blocks left", kept.len()));
    }
    Ok(kept)
}

fn normalised(model: &Model, pixels: &Pixels) -> Result<Vec<Images>, PruneError> {
    let patch_size = model.spec().patch_size;
    let normalisation = model.metadata().preprocessing.normalisation();
    let side = pixels.side_px / patch_size;
    let grid = PatchGrid { rows: side, cols: side };
    let images = pixels.images().take(MOST_IMAGES);
    let images = images.map(|image| Images::new(image, grid, patch_size, normalisation, &Device::Cpu));
    Ok(images.collect::<candle_core::Result<_>>()?)
}

/// Patch tokens of the model with these blocks only, an image each.
fn tokens(vit: &Vit, blocks: &[usize], images: &[Images]) -> Result<Vec<Tensor>, PruneError> {
    let mut spec = vit.spec().clone();
    spec.depth = blocks.len();
    let pruned = Vit::new(spec, keep_blocks(vit.parameters(), blocks));
    let patches = images.iter().map(|images| pruned.forward(images, Request::default())?.patches());
    Ok(patches.collect::<candle_core::Result<_>>()?)
}

/// Mean patch cosine.
fn agreement(got: &[Tensor], want: &[Tensor]) -> Result<f64, PruneError> {
    let mut sum = 0.0;
    for (got, want) in got.iter().zip(want) {
        sum += 1.0 - f64::from(cosine(got, want)?.mean_all()?.to_scalar::<f32>()?);
    }
    Ok(sum / want.len().max(1) as f64)
}
