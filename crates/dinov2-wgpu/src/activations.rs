//! What lies between kernels: one buffer per kind, shared by all blocks and all grids.

use dinov2_core::PatchGrid;
use wgpu::{Buffer, BufferUsages};

use crate::kernels::quantize::Quantized;
use crate::layout::Layout;
use crate::weights::Numbers;
use crate::{Gpu, GpuError};

/// Room for frames of up to `rows` tokens and `patch_rows` patches.
pub(crate) struct Activations {
    rows: usize,
    patches: usize,
    /// `[height, width, 3]`, u8.
    pub(crate) pixels: Buffer,
    /// `[patches, layout.pixels]`, f32.
    pub(crate) patch_rows: Buffer,
    /// The residual stream, `[rows, layout.tokens]`, f32.
    pub(crate) tokens: Buffer,
    /// `[rows, layout.tokens]`; of integer products it is `quantized` instead.
    pub(crate) normed: Buffer,
    /// `[rows, layout.qkv]`.
    pub(crate) qkv: Buffer,
    /// Attention's output, `[rows, layout.attended]`.
    pub(crate) attended: Buffer,
    /// Inside the MLP, `[rows, layout.hidden]`.
    pub(crate) hidden: Buffer,
    /// The input of integer products, whichever it is.
    pub(crate) quantized: Quantized,
}

impl Activations {
    /// Room for this grid and every smaller one.
    pub(crate) fn new(
        gpu: &Gpu,
        layout: &Layout,
        numbers: Numbers,
        grid: PatchGrid,
    ) -> Result<Self, GpuError> {
        let rows = layout.rows(grid);
        let patches = layout.patch_rows(grid);
        let buffer = |what: &str, rows: usize, bytes_per_row: u64| {
            let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
            gpu.buffer(&format!("{what} of {rows} rows"), rows as u64 * bytes_per_row, usage)
        };
        let real = |columns: usize| columns as u64 * numbers.real.bytes();
        let int8_rows = if numbers.int8 { rows } else { 0 };
        let float_rows = if numbers.int8 { 0 } else { rows };
        let widest = layout.tokens.max(layout.attended).max(layout.hidden);
        Ok(Self {
            rows,
            patches,
            pixels: buffer("pixels", patches, (3 * layout.patch_size * layout.patch_size) as u64)?,
            patch_rows: buffer("patch pixels", patches, 4 * layout.pixels as u64)?,
            tokens: buffer("tokens", rows, 4 * layout.tokens as u64)?,
            normed: buffer("normed tokens", float_rows, real(layout.tokens))?,
            qkv: buffer("queries, keys and values", rows, real(layout.qkv))?,
            attended: buffer("attention", rows, real(layout.attended))?,
            hidden: buffer("mlp", rows, real(layout.hidden))?,
            quantized: Quantized {
                values: buffer("quantized rows", int8_rows, widest as u64)?,
                row_terms: buffer("scales of rows", int8_rows, 8)?,
            },
        })
    }

    pub(crate) fn has_room(&self, layout: &Layout, grid: PatchGrid) -> bool {
        layout.rows(grid) <= self.rows && layout.patch_rows(grid) <= self.patches
    }
}
