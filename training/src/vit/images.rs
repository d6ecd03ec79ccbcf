//! Pixels as rows of normalised patches.

use candle_core::{Device, Result, Tensor};
use dinov2_core::PatchGrid;
use dinov2_weights::Normalisation;
use rayon::prelude::*;

/// Input of a patch embedding: normalised patches as rows.
#[derive(Clone, Debug)]
pub struct Images {
    /// `[batch * patches, 3 * patch * patch]`, of every patch channel after channel, as the filters lie in a model file.
    rows: Tensor,
    batch: usize,
    grid: PatchGrid,
}

impl Images {
    /// From `pixels: [batch, height, width, 3]` in u8 RGB.
    ///
    /// # Errors
    /// Those of candle.
    ///
    /// # Panics
    /// If `pixels` is not a whole number of images of whole patches.
    pub fn new(
        pixels: &[u8],
        grid: PatchGrid,
        patch_size: usize,
        normalisation: Normalisation,
        device: &Device,
    ) -> Result<Self> {
        let row = grid.cols * patch_size * 3;
        let image = grid.rows * patch_size * row;
        assert!(
            !pixels.is_empty() && pixels.len().is_multiple_of(image),
            "images: whole images of {grid} patches"
        );
        let batch = pixels.len() / image;
        let width = 3 * patch_size * patch_size;
        let table = table(normalisation);
        let mut rows = vec![0.0; batch * grid.len() * width];
        // A task is one row of patches of one image.
        let strips = rows.par_chunks_mut(grid.cols * width).zip(pixels.par_chunks(patch_size * row));
        strips.for_each(|(patches, pixels)| {
            for (col, patch) in patches.chunks_exact_mut(width).enumerate() {
                for (at, value) in patch.iter_mut().enumerate() {
                    let (channel, place) = (at / (patch_size * patch_size), at % (patch_size * patch_size));
                    let (y, x) = (place / patch_size, col * patch_size + place % patch_size);
                    *value = table[channel][usize::from(pixels[y * row + x * 3 + channel])];
                }
            }
        });
        let rows = Tensor::from_vec(rows, (batch * grid.len(), width), device)?;
        Ok(Self { rows, batch, grid })
    }

    /// Number of images.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Grid of every image.
    pub fn grid(&self) -> PatchGrid {
        self.grid
    }

    /// `[batch * patches, 3 * patch * patch]`.
    pub fn rows(&self) -> &Tensor {
        &self.rows
    }
}

/// `(pixel / 255 - mean) / std` for every channel and pixel.
fn table(normalisation: Normalisation) -> [[f32; 256]; 3] {
    let Normalisation { mean, std } = normalisation;
    std::array::from_fn(|channel| {
        std::array::from_fn(|pixel| (pixel as f32 / 255.0 - mean[channel]) / std[channel])
    })
}
