//! Patches of one grid brought to another, as a product with a matrix: differentiable, and the same for every batch.
//!
//! Antialiased bicubic resampling along columns, then along rows, by PyTorch's formulas in f32
//! (`aten/src/ATen/native/cpu/UpSampleKernel.cpp`, coefficient -0.5): the numbers of `dinov2_weights::position` in its antialiased
//! convention, without a table around them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Result, Tensor, bail};
use dinov2_core::{PatchGrid, limits};

/// Coefficient of the cubic kernel, that of PIL.
const CUBIC: f32 = -0.5;

/// The matrices of the pairs of grids so far.
#[derive(Debug, Default)]
pub struct Resizer(Mutex<HashMap<[PatchGrid; 2], Tensor>>);

impl Resizer {
    /// `patches: [batch, from.len(), dim]` as `[batch, to.len(), dim]`.
    ///
    /// # Errors
    /// A grid that is empty or too large, and those of candle.
    pub fn resize(&self, patches: &Tensor, from: PatchGrid, to: PatchGrid) -> Result<Tensor> {
        if from == to {
            return Ok(patches.clone());
        }
        self.matrix(from, to, patches.device())?.to_dtype(patches.dtype())?.broadcast_matmul(patches)
    }

    fn matrix(&self, from: PatchGrid, to: PatchGrid, device: &Device) -> Result<Tensor> {
        let mut matrices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(matrix) = matrices.get(&[from, to]) {
            return Ok(matrix.clone());
        }
        let matrix = Tensor::from_vec(resize_matrix(from, to)?, (to.len(), from.len()), device)?;
        matrices.insert([from, to], matrix.clone());
        Ok(matrix)
    }
}

/// The matrix of resampling, `[to.len(), from.len()]`.
///
/// # Errors
/// A grid that is empty or has more than [`limits::MAX_PATCHES`] patches.
pub(crate) fn resize_matrix(from: PatchGrid, to: PatchGrid) -> Result<Vec<f32>> {
    for grid in [from, to] {
        let patches = grid.rows.checked_mul(grid.cols);
        if !patches.is_some_and(|patches| (1..=limits::MAX_PATCHES).contains(&patches)) {
            bail!("grid: expected 1..={} patches, got {grid}", limits::MAX_PATCHES);
        }
    }
    let (rows, cols) = (axis_weights(from.rows, to.rows), axis_weights(from.cols, to.cols));
    let mut matrix = vec![0.0; to.len() * from.len()];
    let mut places = matrix.chunks_exact_mut(from.len());
    for row_weights in &rows {
        for col_weights in &cols {
            let Some(place) = places.next() else { break };
            for &(row, of_row) in row_weights {
                for &(col, of_col) in col_weights {
                    // A sum that starts at 0, as a table's: no entry is -0.
                    place[row * from.cols + col] += of_row * of_col;
                }
            }
        }
    }
    Ok(matrix)
}

/// For each of `to` places along one axis, the places among `from` that it reads, with weights of sum 1.
fn axis_weights(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let scale = from as f32 / to as f32;
    let support = 2.0 * scale.max(1.0);
    let inverse = if scale >= 1.0 { 1.0 / scale } else { 1.0 };
    let of_place = |index: usize| {
        let centre = scale * (index as f32 + 0.5);
        let first = ((centre - support + 0.5) as usize).min(from - 1);
        let end = ((centre + support + 0.5) as usize).clamp(first + 1, from);
        let weight = |place: usize| cubic(((place as f32 - centre + 0.5) * inverse).abs());
        let mut weights: Vec<(usize, f32)> = (first..end).map(|place| (place, weight(place))).collect();
        let sum: f32 = weights.iter().map(|(_, weight)| weight).sum();
        weights.iter_mut().for_each(|(_, weight)| *weight /= sum);
        weights
    };
    (0..to).map(of_place).collect()
}

/// Keys' cubic convolution kernel at distance `x >= 0`.
fn cubic(x: f32) -> f32 {
    if x <= 1.0 {
        ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * CUBIC - 4.0 * CUBIC
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use dinov2_core::PositionConvention;
    use dinov2_weights::position;

    use super::*;

    const GRIDS: [[usize; 4]; 8] = [
        [2, 3, 4, 5],
        [16, 16, 12, 12],
        [12, 12, 16, 16],
        [37, 37, 16, 16],
        [5, 9, 5, 4],
        [1, 1, 3, 2],
        [3, 7, 1, 1],
        [14, 14, 21, 21],
    ];

    fn grids([from_rows, from_cols, rows, cols]: [usize; 4]) -> [PatchGrid; 2] {
        [PatchGrid { rows: from_rows, cols: from_cols }, PatchGrid { rows, cols }]
    }

    /// Resampling a table of unit vectors gives the matrix of resampling, bit for bit.
    #[test]
    fn matrices_have_the_bits_of_position_tables() {
        for [from, to] in GRIDS.map(grids) {
            let places = from.len();
            let mut unit = vec![0.0; (1 + places) * places];
            (0..places).for_each(|place| unit[(1 + place) * places + place] = 1.0);
            let table = position::resample(&unit, from, to, PositionConvention::ExactSizeAntialias).unwrap();
            let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(&resize_matrix(from, to).unwrap()) == bits(&table[places..]), "{from} to {to}");
        }
    }

    #[test]
    fn a_matrix_is_made_once_per_pair_of_grids() {
        let resizer = Resizer::default();
        let patches = |grid: PatchGrid| {
            let numbers: Vec<f32> = (0..2 * grid.len() * 3).map(|at| (at as f32 * 0.7).sin()).collect();
            Tensor::from_vec(numbers, (2, grid.len(), 3), &Device::Cpu).unwrap()
        };
        for [from, to] in GRIDS.map(grids).into_iter().chain(GRIDS.map(grids)) {
            let flat = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let kept = flat(resizer.resize(&patches(from), from, to).unwrap());
            assert_eq!(kept, flat(Resizer::default().resize(&patches(from), from, to).unwrap()));
        }
        assert_eq!(resizer.0.lock().unwrap().len(), GRIDS.len());
        let same = PatchGrid { rows: 2, cols: 2 };
        resizer.resize(&patches(same), same, same).unwrap();
        assert_eq!(resizer.0.lock().unwrap().len(), GRIDS.len());
        let none = PatchGrid { rows: 0, cols: 4 };
        assert!(resizer.resize(&patches(same), same, none).is_err());
    }
}
