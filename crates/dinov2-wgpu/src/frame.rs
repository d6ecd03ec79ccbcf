use bytemuck::{Pod, Zeroable};
use dinov2_core::PatchGrid;
use wgpu::{Buffer, BufferUsages};

use crate::kernels::narrow;
use crate::layout::Layout;
use crate::{Gpu, GpuError};

/// What changes from grid to grid: `Frame` in `parts/frame.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Frame {
    pub(crate) tokens: u32,
    pub(crate) patches: u32,
    pub(crate) grid_cols: u32,
    /// Bytes of a line of pixels.
    pub(crate) line_bytes: u32,
}

const _: () = assert!(size_of::<Frame>() == 16);

impl Frame {
    pub(crate) fn new(layout: &Layout, grid: PatchGrid) -> Self {
        Self {
            tokens: narrow(layout.prefix + grid.len()),
            patches: narrow(grid.len()),
            grid_cols: narrow(grid.cols),
            line_bytes: narrow(grid.cols * layout.patch_size * 3),
        }
    }

    pub(crate) fn upload(self, gpu: &Gpu) -> Result<Buffer, GpuError> {
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let buffer = gpu.buffer("frame", size_of::<Self>() as u64, usage)?;
        gpu.queue().write_buffer(&buffer, 0, bytemuck::bytes_of(&self));
        Ok(buffer)
    }
}
