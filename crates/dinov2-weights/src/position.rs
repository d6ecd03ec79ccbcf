//! Resamples the position table to another grid, exactly as each source of checkpoints does.
//!
//! Data shape: `table: [1 + rows*cols, dim]`, row 0 for CLS, then patches row by row. CLS is copied; the patches are
//! resampled along columns, then along rows, with one list of weights per output place. Coordinates and weights are
//! computed in f32 by PyTorch's formulas (`aten/src/ATen/native/cpu/UpSampleKernel.cpp`), because their rounding decides
//! which stored places an output place reads.
//!
//! ```
//! use dinov2_core::{PatchGrid, PositionConvention};
//! use dinov2_weights::position::resample;
//!
//! let stored = PatchGrid { rows: 2, cols: 2 };
//! let table = [9.0, 0.0, 1.0, 0.0, 1.0]; // CLS, then 2 x 2 patches of width 1
//! let target = PatchGrid { rows: 4, cols: 4 };
//! let resampled = resample(&table, stored, target, PositionConvention::ExactSize).unwrap();
//! assert_eq!(resampled.len(), 1 + target.len());
//! assert_eq!(resampled[0], 9.0);
//! ```

use dinov2_core::{PatchGrid, PositionConvention, limits};

/// The cubic coefficient of PyTorch's plain bicubic resampling.
const CUBIC_PLAIN: f32 = -0.75;
/// The cubic coefficient of its antialiased resampling, that of PIL.
const CUBIC_ANTIALIAS: f32 = -0.5;
/// Added to the target side before the scale factor is taken (`interpolate_offset` of the official code).
const OFFICIAL_OFFSET: f64 = 0.1;

/// Resamples `table: [1 + stored.len(), dim]` to `[1 + target.len(), dim]`. A target equal to the stored grid returns
/// the table unchanged, as every source does.
///
/// # Errors
/// A target grid that is empty or beyond [`limits::MAX_PATCHES`], or a table of the wrong length.
pub fn resample(
    table: &[f32],
    stored: PatchGrid,
    target: PatchGrid,
    convention: PositionConvention,
) -> Result<Vec<f32>, String> {
    let patches =
        target.rows.checked_mul(target.cols).filter(|patches| (1..=limits::MAX_PATCHES).contains(patches));
    if patches.is_none() {
        return Err(format!("position grid: expected 1..={} patches, got {target}", limits::MAX_PATCHES));
    }
    let places = stored.rows.checked_mul(stored.cols).and_then(|places| places.checked_add(1));
    let dim =
        places.filter(|places| table.len().is_multiple_of(*places)).map_or(0, |places| table.len() / places);
    if dim == 0 || stored.is_empty() {
        return Err(format!(
            "position table: expected rows for a grid of {stored}, got {} numbers",
            table.len()
        ));
    }
    if target == stored {
        return Ok(table.to_vec());
    }
    let along_columns = axis_weights(stored.cols, target.cols, convention);
    let along_rows = axis_weights(stored.rows, target.rows, convention);
    let narrowed = resample_columns(&table[dim..], stored, dim, &along_columns);
    let mut out = vec![0.0; (1 + target.len()) * dim];
    out[..dim].copy_from_slice(&table[..dim]);
    resample_rows(&narrowed, target.cols * dim, &along_rows, &mut out[dim..]);
    Ok(out)
}

/// The stored places that one output place reads, with their weights.
type PlaceWeights = Vec<(usize, f32)>;

/// `patches: [rows, cols, dim]` to `[rows, places.len(), dim]`.
fn resample_columns(patches: &[f32], grid: PatchGrid, dim: usize, places: &[PlaceWeights]) -> Vec<f32> {
    let mut out = vec![0.0; grid.rows * places.len() * dim];
    let rows = patches.chunks_exact(grid.cols * dim).zip(out.chunks_exact_mut(places.len() * dim));
    for (patches, out) in rows {
        for (out, weights) in out.chunks_exact_mut(dim).zip(places) {
            accumulate(patches, dim, weights, out);
        }
    }
    out
}

/// `patches: [rows, row]` to `out: [places.len(), row]`.
fn resample_rows(patches: &[f32], row: usize, places: &[PlaceWeights], out: &mut [f32]) {
    for (out, weights) in out.chunks_exact_mut(row).zip(places) {
        accumulate(patches, row, weights, out);
    }
}

/// `out += Σ weight · values[place]`, where `values: [places, width]`.
fn accumulate(values: &[f32], width: usize, weights: &PlaceWeights, out: &mut [f32]) {
    for &(place, weight) in weights {
        for (out, value) in out.iter_mut().zip(&values[place * width..(place + 1) * width]) {
            *out += weight * value;
        }
    }
}

/// For each of `target` output places along one axis: which of the `stored` places it reads.
fn axis_weights(stored: usize, target: usize, convention: PositionConvention) -> Vec<PlaceWeights> {
    let exact = stored as f32 / target as f32;
    let place = |index: usize| match convention {
        PositionConvention::OfficialScaleFactor => {
            let factor = (target as f64 + OFFICIAL_OFFSET) / stored as f64;
            plain_weights(index, stored, (1.0 / factor) as f32)
        }
        PositionConvention::ExactSize => plain_weights(index, stored, exact),
        PositionConvention::ExactSizeAntialias => antialias_weights(index, stored, exact),
    };
    (0..target).map(place).collect()
}

/// Four neighbours, clamped at the borders. `scale`: stored places per output place.
fn plain_weights(index: usize, stored: usize, scale: f32) -> PlaceWeights {
    // PyTorch's kernel is compiled with fused multiply-add; far from the origin the difference is 1e-5 of a weight.
    let source = scale.mul_add(index as f32 + 0.5, -0.5);
    let floor = source.floor().min((stored - 1) as f32);
    let fraction = (source - floor).clamp(0.0, 1.0);
    let distances = [fraction + 1.0, fraction, 1.0 - fraction, 2.0 - fraction];
    let neighbour = |step: usize| (floor as isize + step as isize - 1).clamp(0, stored as isize - 1) as usize;
    (0..4).map(|step| (neighbour(step), cubic(distances[step], CUBIC_PLAIN))).collect()
}

/// Every place under the widened kernel, weights normalised to sum 1.
fn antialias_weights(index: usize, stored: usize, scale: f32) -> PlaceWeights {
    let widening = scale.max(1.0);
    let support = 2.0 * widening;
    let center = scale * (index as f32 + 0.5);
    let first = ((center - support + 0.5) as usize).min(stored - 1);
    let end = ((center + support + 0.5) as usize).clamp(first + 1, stored);
    let inverse = if scale >= 1.0 { 1.0 / scale } else { 1.0 };
    let mut weights: PlaceWeights = (first..end)
        .map(|place| {
            let offset = (place as f32 - center + 0.5) * inverse;
            (place, cubic(offset.abs(), CUBIC_ANTIALIAS))
        })
        .collect();
    let sum: f32 = weights.iter().map(|(_, weight)| weight).sum();
    weights.iter_mut().for_each(|(_, weight)| *weight /= sum);
    weights
}

/// Keys' cubic convolution kernel with coefficient `a`, at distance `x >= 0`.
fn cubic(x: f32, a: f32) -> f32 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * a - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_grids_are_refused() {
        let stored = PatchGrid { rows: 2, cols: 2 };
        let resample_to = |rows, cols, len| {
            resample(&vec![1.0; len], stored, PatchGrid { rows, cols }, PositionConvention::ExactSize)
        };
        assert_eq!(resample_to(2, 2, 15).unwrap(), [1.0; 15]);
        for (rows, cols, len) in
            [(0, 1, 15), (1, 0, 15), (usize::MAX, 2, 15), (1 << 11, 1 << 10, 15), (3, 3, 14), (3, 3, 0)]
        {
            assert!(resample_to(rows, cols, len).is_err(), "{rows}x{cols} of {len}");
        }
    }

    #[test]
    fn a_constant_table_stays_constant() {
        for convention in [
            PositionConvention::OfficialScaleFactor,
            PositionConvention::ExactSize,
            PositionConvention::ExactSizeAntialias,
        ] {
            for (side, rows, cols) in [(1, 3, 2), (5, 1, 1), (37, 123, 39), (37, 2, 43)] {
                let stored = PatchGrid { rows: side, cols: side };
                let out = resample(&vec![0.5; 1 + side * side], stored, PatchGrid { rows, cols }, convention)
                    .unwrap();
                assert!(
                    out.iter().all(|value| (value - 0.5).abs() < 1e-6),
                    "{convention} {side} {rows}x{cols}"
                );
            }
        }
    }
}
