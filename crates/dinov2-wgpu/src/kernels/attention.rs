use wgpu::Buffer;

use super::{Access, FRAME, Real, Shader, narrow};
use crate::layout::Layout;
use crate::step::{Stage, Step};
use crate::{Gpu, GpuError};

const SIDE: usize = 8;
const QUERIES: usize = 32;
const KEYS: usize = 16;
/// Columns of the output in a workgroup.
const PART: usize = 64;

/// Bytes of workgroup memory; queries are staged there if they fit.
fn workgroup_bytes(layout: &Layout, real: Real, staged: bool) -> usize {
    let queries = if staged { QUERIES * layout.head } else { 0 } + 4;
    let block = KEYS * (layout.head.max(PART) + 4);
    (queries + block) * real.bytes() as usize + (KEYS + SIDE) * SIDE * 16
}

pub(crate) fn shader(real: Real) -> Shader {
    Shader {
        name: "attention",
        parts: vec![real.part(), FRAME, include_str!("attention.wgsl")],
        bindings: &[(0, Access::Uniform), (1, Access::Read), (2, Access::ReadWrite)],
    }
}

/// Exponents of 2 instead of e.
pub(crate) fn score_scale(layout: &Layout) -> f64 {
    std::f64::consts::LOG2_E / (layout.head_dim as f64).sqrt()
}

/// `output: [tokens, layout.attended]` from `qkv: [tokens, layout.qkv]`.
pub(crate) fn step(
    gpu: &Gpu,
    layout: &Layout,
    real: Real,
    tokens: usize,
    [frame, qkv, output]: [&Buffer; 3],
) -> Result<Step, GpuError> {
    let most_bytes = gpu.device().limits().max_compute_workgroup_storage_size as usize;
    let fits = |staged| workgroup_bytes(layout, real, staged) <= most_bytes;
    if !fits(false) {
        return Err(GpuError::Unsupported {
            what: "bytes of workgroup memory for a block of keys",
            most: most_bytes,
            got: workgroup_bytes(layout, real, false),
        });
    }
    let constants = [
        ("HEADS", layout.heads as f64),
        ("HEAD4", (layout.head / 4) as f64),
        ("QKV4", (layout.qkv / 4) as f64),
        ("OUT4", (layout.attended / 4) as f64),
        ("SCALE", score_scale(layout)),
        ("STAGED", f64::from(fits(true))),
    ];
    let workgroups =
        [narrow(tokens.div_ceil(QUERIES)), narrow(layout.heads), narrow(layout.head.div_ceil(PART))];
    let buffers = [frame, qkv, output].map(Into::into);
    Step::new(gpu, Stage::Attention, &shader(real), &constants, &buffers, workgroups)
}
