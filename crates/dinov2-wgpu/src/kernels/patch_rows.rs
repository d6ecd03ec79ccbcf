//! `patch_rows.wgsl`: u8 pixels to one row of centred f32 pixels per patch, the input of the patch embedding's matrix product.

use dinov2_core::{PIXEL_CENTRE, PatchGrid};
use wgpu::Buffer;

use super::{Access, FRAME, Shader, linear};
use crate::layout::Layout;
use crate::step::{Stage, Step};
use crate::{Gpu, GpuError};

const LANES: usize = 64;

pub(crate) fn shader() -> Shader {
    Shader {
        name: "patch_rows",
        parts: vec![FRAME, include_str!("patch_rows.wgsl")],
        bindings: &[(0, Access::Uniform), (1, Access::Read), (2, Access::ReadWrite)],
    }
}

/// Pixels `[height, width, 3]`, u8, to rows of centred pixels: `[patches, layout.pixels]`, f32.
pub(crate) fn step(
    gpu: &Gpu,
    layout: &Layout,
    grid: PatchGrid,
    frame: &Buffer,
    pixels: &Buffer,
    rows: &Buffer,
) -> Result<Step, GpuError> {
    let vectors = layout.pixels / 4;
    let constants =
        [("PATCH", layout.patch_size as f64), ("OUT4", vectors as f64), ("CENTRE", f64::from(PIXEL_CENTRE))];
    let workgroups = linear((grid.len() * vectors).div_ceil(LANES));
    let buffers = [frame.into(), pixels.into(), rows.into()];
    Step::new(gpu, Stage::PatchRows, &shader(), &constants, &buffers, workgroups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::kernels::Real;
    use crate::layout::COLUMN_ALIGN;
    use crate::test_util::{buffer, buffer_of_bytes, bytes, gpu, layout, read};

    /// `[patches, stride]`, from the definition of a patch.
    fn expected(pixels: &[u8], patch: usize, grid: PatchGrid, stride: usize) -> Vec<f32> {
        let width = grid.cols * patch;
        let mut rows = vec![0.0; grid.len() * stride];
        for (at, &byte) in pixels.iter().enumerate() {
            let (y, x, colour) = (at / (3 * width), at / 3 % width, at % 3);
            let index = y / patch * grid.cols + x / patch;
            let col = (y % patch * patch + x % patch) * 3 + colour;
            rows[index * stride + col] = f32::from(byte) - f32::from(PIXEL_CENTRE);
        }
        rows
    }

    #[test]
    fn patches_become_rows() {
        let Some(gpu) = gpu() else { return };
        for (patch_size, rows, cols) in [(1usize, 3, 5), (8, 2, 3), (14, 3, 2), (14, 1, 1), (16, 1, 5)] {
            let stride = (3 * patch_size * patch_size).next_multiple_of(COLUMN_ALIGN);
            let layout = Layout { patch_size, pixels: stride, ..layout(1, 4) };
            let grid = PatchGrid { rows, cols };
            let pixels: Vec<u8> = bytemuck::cast_vec(bytes(1, 3 * patch_size * patch_size * grid.len()));
            let mut want = expected(&pixels, patch_size, grid, stride);
            // A row more than there are patches must stay as it is.
            want.extend(vec![7.0; stride]);
            let output = buffer(gpu, Real::F32, &vec![7.0; want.len()]);
            let frame = Frame::new(&layout, grid).upload(gpu).expect("room for a frame");
            let step =
                step(gpu, &layout, grid, &frame, &buffer_of_bytes(gpu, &pixels), &output).expect("a kernel");
            crate::test_util::run(gpu, &[step]);
            assert_eq!(read(gpu, Real::F32, &output, want.len()), want, "{rows} x {cols} of {patch_size}");
        }
    }
}
