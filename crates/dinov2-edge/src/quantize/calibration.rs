//! Calibration: statistics of the inputs of a model's matrices on images, used for rounding and smoothing.

use std::collections::BTreeMap;

use dinov2_core::{ExtractError, Features, ImageView};
use dinov2_cpu::{CpuEngine, Matrix};
use dinov2_kernels::gemm_f32::PackedLinear;
use dinov2_kernels::{Epilogue, Isa, Pool};

/// An image, fitted to a patch grid.
#[derive(Clone, Debug)]
pub struct Picture {
    /// RGB u8, `[height_px, width_px, 3]`.
    pub pixels: Vec<u8>,
    /// Width in pixels.
    pub width_px: usize,
    /// Height in pixels.
    pub height_px: usize,
}

impl Picture {
    /// Copies an image.
    pub fn new(image: ImageView<'_>) -> Self {
        Self { pixels: image.pixels().to_vec(), width_px: image.width_px(), height_px: image.height_px() }
    }

    /// # Panics
    /// If the number of pixels does not match the size.
    pub fn view(&self) -> ImageView<'_> {
        ImageView::new(&self.pixels, self.width_px, self.height_px).expect("pixels match the size")
    }
}

/// Statistics of the inputs of one matrix.
pub(super) struct InputStatistics {
    /// Sum of `x xᵀ`, `[k, k]`.
    pub(super) gram: Vec<f32>,
    /// Largest magnitude per channel, `[k]`.
    pub(super) largest: Vec<f32>,
}

impl InputStatistics {
    fn new(k: usize) -> Self {
        Self { gram: vec![0.0; k * k], largest: vec![0.0; k] }
    }

    /// `input: [n, k]`.
    fn add(&mut self, isa: Isa, pool: &Pool, input: &[f32]) {
        let k = self.largest.len();
        let rows = input.len() / k;
        let mut columns = vec![0.0; input.len()];
        for (row, values) in input.chunks_exact(k).enumerate() {
            for (channel, (value, largest)) in values.iter().zip(&mut self.largest).enumerate() {
                columns[channel * rows + row] = *value;
                *largest = largest.max(value.abs());
            }
        }
        let layer = PackedLinear::pack(isa, &columns, &vec![0.0; k], rows);
        layer.apply(isa, pool, Epilogue::Add, &columns, &mut self.gram);
    }
}

/// Statistics of every matrix of the blocks.
#[derive(Default)]
pub(super) struct Calibration {
    inputs: BTreeMap<(usize, Matrix), InputStatistics>,
}

impl Calibration {
    /// Adds the inputs of all matrices for one image. `engine` runs in f32.
    pub(super) fn add(
        &mut self,
        engine: &mut CpuEngine,
        pool: &Pool,
        image: &Picture,
    ) -> Result<(), ExtractError> {
        let (isa, mut features) = (engine.isa(), Features::new());
        let tokens = {
            use dinov2_core::Extractor;
            let spec = engine.spec();
            spec.tokens(image.view().grid(spec.patch_size)?)
        };
        engine.extract_observed(image.view(), &mut features, &mut |block, matrix, input| {
            let k = input.len() / tokens;
            let entry = self.inputs.entry((block, matrix)).or_insert_with(|| InputStatistics::new(k));
            entry.add(isa, pool, input);
        })
    }

    /// # Panics
    /// If no image was added.
    pub(super) fn of(&self, block: usize, matrix: Matrix) -> &InputStatistics {
        &self.inputs[&(block, matrix)]
    }
}
