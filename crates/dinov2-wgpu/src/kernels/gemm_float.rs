use super::product::{Product, Tile};
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

pub(crate) fn shader(real: Real, product: &Product<'_>) -> Shader {
    let weights = match product.matrix.form {
        Form::Int8AsFloat => include_str!("parts/weights_i8.wgsl"),
        _ => include_str!("parts/weights_real.wgsl"),
    };
    let mut parts = vec![real.part(), weights];
    parts.extend(product.parts());
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
    let shader = shader(real, &product);
    Step::new(
        gpu,
        product.stage,
        &shader,
        &constants,
        &buffers,
        product.workgroups(tile.height(), tile.width()),
    )
}
