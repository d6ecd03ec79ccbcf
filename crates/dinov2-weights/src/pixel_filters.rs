//! The patch embedding as a linear layer over centred u8 pixels, the form that engines use.

use dinov2_core::PIXEL_CENTRE;

use crate::{Model, ModelError};

/// [`Model::pixel_filters`].
#[derive(Clone, Debug)]
pub struct PixelFilters {
    /// `[dim, patch, patch, 3]`, for interleaved pixels less [`PIXEL_CENTRE`].
    pub weight: Vec<f32>,
    /// `[dim]`.
    pub bias: Vec<f32>,
}

impl Model {
    /// The patch embedding with mean and standard deviation folded in, for interleaved pixels less [`PIXEL_CENTRE`].
    ///
    /// # Errors
    /// As [`Model::f32`].
    pub fn pixel_filters(&self) -> Result<PixelFilters, ModelError> {
        let preprocessing = &self.metadata().preprocessing;
        let mut weight = self.f32("patch_embed.proj.weight")?;
        let mut bias = self.f32("patch_embed.proj.bias")?;
        fold_normalisation(&mut weight, &mut bias, preprocessing.mean, preprocessing.std);
        Ok(PixelFilters { weight: interleave_channels(&weight, self.spec().patch_size), bias })
    }
}

/// Folds `(pixel / 255 - mean) / std` into the patch embedding, so that it takes `pixel - PIXEL_CENTRE` instead.
/// `weight: [dim, 3, patch, patch]` in place; `bias: [dim]` in place; `mean`, `std` in RGB order for inputs in 0..=1.
///
/// # Panics
/// When lengths disagree.
pub fn fold_normalisation(weight: &mut [f32], bias: &mut [f32], mean: [f32; 3], std: [f32; 3]) {
    let dim = bias.len();
    assert!(
        dim > 0 && weight.len().is_multiple_of(3 * dim),
        "fold_normalisation: weight [dim, 3, patch, patch]"
    );
    let channel_len = weight.len() / dim / 3;
    for (filter, bias) in weight.chunks_exact_mut(3 * channel_len).zip(bias) {
        let mut shift = f64::from(*bias);
        for (channel, values) in filter.chunks_exact_mut(channel_len).enumerate() {
            let (mean, std) = (f64::from(mean[channel]), f64::from(std[channel]));
            let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
            shift += sum * (f64::from(PIXEL_CENTRE) / 255.0 - mean) / std;
            values.iter_mut().for_each(|value| *value = (f64::from(*value) / (255.0 * std)) as f32);
        }
        *bias = shift as f32;
    }
}

/// Reorders filters from `[dim, 3, patch, patch]` to `[dim, patch, patch, 3]`, the order of interleaved pixels.
pub fn interleave_channels(weight: &[f32], patch_size: usize) -> Vec<f32> {
    let area = patch_size * patch_size;
    let filters = weight.chunks_exact(3 * area);
    filters.flat_map(|filter| (0..area * 3).map(|at| filter[at % 3 * area + at / 3])).collect()
}
