//! Position tables of other grids than the stored one, differentiable.

use std::collections::HashMap;
use std::sync::Mutex;

use candle_core::{DType, Device, Result, Tensor};
use dinov2_core::{PatchGrid, VitSpec};
use dinov2_weights::position;

/// Interpolation matrices of the grids so far: resampling a position table is a product with one, and so differentiable. In f32
/// for networks of any type, which may share them.
#[derive(Debug, Default)]
pub struct Positions(Mutex<HashMap<PatchGrid, Tensor>>);

impl Positions {
    /// The position table of a grid, `[1, 1 + patches, dim]`, row 0 for CLS. `stored: [1, 1 + stored patches, dim]`.
    ///
    /// # Errors
    /// A grid that is empty or too large, and those of candle.
    pub fn table(&self, spec: &VitSpec, stored: &Tensor, grid: PatchGrid) -> Result<Tensor> {
        if grid == spec.position_table {
            return Ok(stored.clone());
        }
        let matrix = self.matrix(spec, stored.device(), grid)?;
        let places = spec.position_table.len();
        let table = stored.narrow(1, 1, places)?.squeeze(0)?.contiguous()?.to_dtype(DType::F32)?;
        let patches = matrix.matmul(&table)?.to_dtype(stored.dtype())?;
        Tensor::cat(&[&stored.narrow(1, 0, 1)?, &patches.unsqueeze(0)?], 1)
    }

    /// `[patches, stored patches]`.
    fn matrix(&self, spec: &VitSpec, device: &Device, grid: PatchGrid) -> Result<Tensor> {
        let mut matrices = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(matrix) = matrices.get(&grid) {
            return Ok(matrix.clone());
        }
        let matrix = interpolation(spec, grid).map_err(candle_core::Error::msg)?;
        let shape = (grid.len(), spec.position_table.len());
        let matrix = Tensor::from_vec(matrix, shape, device)?;
        matrices.insert(grid, matrix.clone());
        Ok(matrix)
    }
}

/// Resampling is linear, so resampling the unit table (a channel per stored place) gives its matrix.
fn interpolation(spec: &VitSpec, grid: PatchGrid) -> std::result::Result<Vec<f32>, String> {
    let places = spec.position_table.len();
    let mut unit = vec![0.0; (1 + places) * places];
    for place in 0..places {
        unit[(1 + place) * places + place] = 1.0;
    }
    let mut matrix = position::resample(&unit, spec.position_table, grid, spec.position_convention)?;
    matrix.drain(..places);
    Ok(matrix)
}
