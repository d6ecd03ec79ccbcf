//! Masks of hidden patches.

use candle_core::{Device, Result, Tensor};
use rand::Rng;
use rand::seq::SliceRandom;

use crate::recipe::LossRecipe;

/// The hidden patches of a step, `[batch, patches]` of 0 and 1; `None` in steps without this term.
///
/// # Errors
/// Those of candle.
pub(super) fn draw(
    recipe: &LossRecipe,
    seed: u64,
    step: u64,
    batch: usize,
    patches: usize,
) -> Result<Option<Tensor>> {
    let hidden = (recipe.mask_ratio * patches as f64).round() as usize;
    let mut random = crate::random::stream(seed, "mask", step);
    if recipe.masked == 0.0 || hidden == 0 || random.random::<f64>() >= recipe.masked_steps {
        return Ok(None);
    }
    let mut mask = vec![0.0f32; batch * patches];
    for image in mask.chunks_exact_mut(patches) {
        image[..hidden].fill(1.0);
        image.shuffle(&mut random);
    }
    Tensor::from_vec(mask, (batch, patches), &Device::Cpu).map(Some)
}
