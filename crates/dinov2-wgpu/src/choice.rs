//! Which tile each matrix product takes.

use crate::Gpu;
use crate::kernels::product::{Product, Tile};
use crate::kernels::{Real, gemm_float, gemm_i8};

/// The choices for one device.
pub(crate) struct Choices {
    workgroup_bytes: usize,
    invocations: usize,
}

impl Choices {
    pub(crate) fn new(gpu: &Gpu) -> Self {
        let limits = gpu.device().limits();
        Self {
            workgroup_bytes: limits.max_compute_workgroup_storage_size as usize,
            invocations: limits.max_compute_invocations_per_workgroup as usize,
        }
    }

    pub(crate) fn float_tile(&self, product: &Product<'_>, real: Real) -> Tile {
        let fits = |tile: &Tile| gemm_float::tile_bytes(*tile, real) <= self.workgroup_bytes;
        self.first(&gemm_float::TILES, fits)
    }

    pub(crate) fn int8_tile(&self, product: &Product<'_>) -> Tile {
        self.first(&gemm_i8::TILES, |tile| gemm_i8::tile_bytes(*tile) <= self.workgroup_bytes)
    }

    fn first(&self, tiles: &[Tile], fits: impl Fn(&Tile) -> bool) -> Tile {
        let usable =
            |tile: &&Tile| fits(tile) && tile.threads() <= self.invocations;
        *tiles.iter().find(usable).expect("the first tile is within WebGPU's default limits")
    }
}
