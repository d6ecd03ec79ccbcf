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
