//! `gemm_i8.wgsl`: matrix products of packed 8-bit integers, sums exact in 32 bits.

use super::product::{Output, Product, Tile};
use super::quantize::Quantized;
use super::{Access, Real, Shader};
use crate::step::{Slice, Step};
use crate::{Gpu, GpuError};

const fn tile(thread_cols: usize, thread_rows: usize, block: usize) -> Tile {
    Tile { thread_cols, thread_rows, block }
}

/// What is tried on a device; the first is taken where nothing is measured.
pub(crate) const TILES: [Tile; 5] =
    [tile(8, 8, 2), tile(8, 16, 2), tile(4, 8, 2), tile(4, 16, 2), tile(8, 4, 2)];

/// Workgroup memory of a tile.
pub(crate) fn tile_bytes(tile: Tile) -> usize {
    tile.bytes(16)
}

/// `real`: number type of the output, where it is stored.
pub(crate) fn shader(real: Real, output: Output) -> Shader {
    let mut parts = vec![real.part()];
    parts.extend(output.parts());
    parts.push(Tile::PART);
    parts.push(include_str!("gemm_i8.wgsl"));
    Shader {
        name: "gemm_i8",
        parts,
        bindings: &[
            (1, Access::Read),
            (2, Access::Read),
            (3, Access::Read),
            (4, Access::ReadWrite),
            (5, Access::Read),
        ],
    }
}

pub(crate) fn step(
    gpu: &Gpu,
    product: Product<'_>,
    tile: Tile,
    real: Real,
    input: &Quantized,
    output: Slice<'_>,
) -> Result<Step, GpuError> {
    let matrix = product.matrix;
    let mut constants = product.constants();
    constants.extend(tile.constants());
    constants.extend([("K16", (matrix.k / 16) as f64), ("BLOCK16", tile.block as f64)]);
    let buffers = [
        (&matrix.weights).into(),
        (&matrix.channels).into(),
        (&input.values).into(),
        output,
        (&input.row_terms).into(),
    ];
    let shader = shader(real, product.output);
    Step::new(
        gpu,
        product.stage,
        &shader,
        &constants,
        &buffers,
        product.workgroups(tile.height(), tile.width()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::product_case::Case;
    use super::*;
    use crate::matrix::Form;
    use crate::test_util::{buffer, buffer_of_bytes, bytes, gpu, numbers, reals};

    /// Sums are exact: what is left is the rounding of the epilogue and of the output.
    fn tolerance(real: Real) -> f64 {
        match real {
            Real::F32 => 5e-7,
            Real::F16 => 5e-4,
        }
    }

    /// Rows as [`Quantized`] has them and their values, `[rows, k]`.
    fn quantized(gpu: &Gpu, case: Case, stride: usize) -> (Vec<f64>, Quantized) {
        let rows = case.tiled_rows();
        // What pads a row counts for nothing, whatever it is: the weights are 0 there.
        let steps = bytes(7, rows * stride);
        let zeros = bytes(8, rows);
        let scales = numbers(9, rows);
        let terms: Vec<f32> =
            scales.iter().zip(&zeros).flat_map(|(&scale, &zero)| [scale, f32::from(zero)]).collect();
        let value = |row: usize, col: usize| {
            let distance = f64::from(steps[row * stride + col]) - f64::from(zeros[row]);
            f64::from(scales[row]) * distance
        };
        let values = (0..case.rows).flat_map(|row| (0..case.k).map(move |col| value(row, col))).collect();
        let rows = Quantized {
            values: buffer_of_bytes(gpu, bytemuck::cast_slice(&steps)),
            row_terms: buffer(gpu, Real::F32, &terms),
        };
        (values, rows)
    }

    fn check(gpu: &Gpu, case: Case, tile: Tile, real: Real) {
        let known = case.matrix(gpu, real);
        assert_eq!(known.matrix.form, Form::Int8);
        let (values, input) = quantized(gpu, case, known.matrix.k);
        case.check(gpu, real, &known, &values, tolerance(real), |product, output| {
            step(gpu, product, tile, real, &input, output.into())
        });
    }

    #[test]
    fn every_tile_multiplies_integers_exactly() {
        let Some(gpu) = gpu() else { return };
        // Few, because drivers without such dot products take seconds to compile what stands for them.
        let mut cases = Case::shared_out(Form::Int8, 0, &TILES);
        cases.extend(Case::shared_out(Form::Int8, 5, &TILES[..1]));
        cases.into_iter().for_each(|(tile, case)| check(gpu, case, tile, Real::F32));
        if reals(gpu).contains(&Real::F16) {
            let cases = Case::shared_out(Form::Int8, 4, &TILES[..1]);
            cases.into_iter().for_each(|(tile, case)| check(gpu, case, tile, Real::F16));
        }
    }

    #[test]
    fn every_tile_fits_the_smallest_devices() {
        let limits = wgpu::Limits::defaults();
        for tile in TILES {
            assert!(tile.threads() <= limits.max_compute_invocations_per_workgroup as usize);
            assert!(tile_bytes(tile) <= limits.max_compute_workgroup_storage_size as usize, "{tile:?}");
        }
    }
}
