use super::product::{Product, Tile};
use super::quantise::Quantised;
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
pub(crate) fn shader(real: Real, product: &Product<'_>) -> Shader {
    let mut parts = vec![real.part()];
    parts.extend(product.parts());
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
    input: &Quantised,
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
