//! `gemm_float.wgsl`: matrix products in f32 or f16 with sums in registers; int8 weights can be widened as they are loaded.

use super::product::{Output, Product, Tile};
use super::{Access, Real, Shader};
use crate::matrix::Form;
use crate::step::{Slice, Step};
use crate::{Gpu, GpuError};

const fn tile(thread_cols: usize, thread_rows: usize, block: usize) -> Tile {
    Tile { thread_cols, thread_rows, block }
}

/// What is tried on a device; the first is taken where nothing is measured.
pub(crate) const TILES: [Tile; 6] =
    [tile(8, 8, 4), tile(8, 16, 4), tile(4, 8, 8), tile(4, 16, 4), tile(8, 4, 4), tile(8, 8, 8)];

/// Workgroup memory of a tile.
pub(crate) fn tile_bytes(tile: Tile, real: Real) -> usize {
    tile.bytes(4 * real.bytes() as usize)
}

pub(crate) fn shader(real: Real, form: Form, output: Output) -> Shader {
    let weights = match form {
        Form::Int8AsFloat => include_str!("parts/weights_i8.wgsl"),
        _ => include_str!("parts/weights_real.wgsl"),
    };
    let mut parts = vec![real.part(), weights];
    parts.extend(output.parts());
    parts.push(Tile::PART);
    parts.push(include_str!("gemm_float.wgsl"));
    Shader {
        name: "gemm_float",
        parts,
        bindings: &[(1, Access::Read), (2, Access::Read), (3, Access::Read), (4, Access::ReadWrite)],
    }
}

/// `input: [rows, k]`, `real`.
pub(crate) fn step(
    gpu: &Gpu,
    product: Product<'_>,
    tile: Tile,
    real: Real,
    input: Slice<'_>,
    output: Slice<'_>,
) -> Result<Step, GpuError> {
    let matrix = product.matrix;
    let mut constants = product.constants();
    constants.extend(tile.constants());
    constants.extend([
        ("K4", (matrix.k / 4) as f64),
        ("BLOCK4", tile.block as f64),
        // Of f16 a tile's products are summed before they are widened; f32 sums need no widening.
        ("WIDEN", f64::from(real == Real::F16)),
    ]);
    let buffers = [(&matrix.weights).into(), (&matrix.channels).into(), input, output];
    let shader = shader(real, matrix.form, product.output);
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
    use crate::test_util::{gpu, reals};

    /// Of f16 a block's products are summed in f16: some 20 roundings of 2^-11, of either sign.
    fn tolerance(real: Real) -> f64 {
        match real {
            Real::F32 => 1e-6,
            Real::F16 => 1.5e-3,
        }
    }

    fn check(gpu: &Gpu, case: Case, tile: Tile, real: Real) {
        let known = case.matrix(gpu, real);
        let (values, input) = case.float_input(gpu, real, known.matrix.k);
        case.check(gpu, real, &known, &values, tolerance(real), |product, output| {
            step(gpu, product, tile, real, (&input).into(), output.into())
        });
    }

    #[test]
    fn every_tile_multiplies_f32() {
        let Some(gpu) = gpu() else { return };
        let form = Form::Float(Real::F32);
        let cases = [Case::shared_out(form, 0, &TILES), Case::shared_out(form, 3, &TILES)];
        cases.concat().into_iter().for_each(|(tile, case)| check(gpu, case, tile, Real::F32));
    }

    #[test]
    fn every_tile_multiplies_f16() {
        let Some(gpu) = gpu() else { return };
        if !reals(gpu).contains(&Real::F16) {
            return;
        }
        let cases = Case::shared_out(Form::Float(Real::F16), 1, &TILES);
        cases.into_iter().for_each(|(tile, case)| check(gpu, case, tile, Real::F16));
    }

    #[test]
    fn every_tile_multiplies_int8_weights_as_floats() {
        let Some(gpu) = gpu() else { return };
        for (real, first) in reals(gpu).into_iter().zip([2, 5]) {
            let cases = Case::shared_out(Form::Int8AsFloat, first, &TILES);
            cases.into_iter().for_each(|(tile, case)| check(gpu, case, tile, real));
        }
    }

    #[test]
    fn every_tile_fits_the_smallest_devices() {
        let limits = wgpu::Limits::defaults();
        for tile in TILES {
            assert!(tile.threads() <= limits.max_compute_invocations_per_workgroup as usize);
            let most = limits.max_compute_workgroup_storage_size as usize;
            assert!(tile_bytes(tile, Real::F32) <= most, "{tile:?}");
        }
    }
}
