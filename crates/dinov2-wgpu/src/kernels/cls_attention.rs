use super::attention::score_scale;
use super::{Access, FRAME, ROW, Real, Shader, narrow};
use crate::layout::Layout;
use crate::step::{Slice, Stage, Step};
use crate::{Gpu, GpuError};

pub(crate) fn shader(real: Real) -> Shader {
    Shader {
        name: "cls_attention",
        parts: vec![real.part(), FRAME, ROW, include_str!("cls_attention.wgsl")],
        bindings: &[(0, Access::Uniform), (1, Access::Read), (2, Access::ReadWrite)],
    }
}

/// `output: [heads, tokens]`, f32, from `qkv: [tokens, layout.qkv]`.
pub(crate) fn step(
    gpu: &Gpu,
    layout: &Layout,
    real: Real,
    buffers: [Slice<'_>; 3],
) -> Result<Step, GpuError> {
    let constants = [
        ("HEADS", layout.heads as f64),
        ("HEAD4", (layout.head / 4) as f64),
        ("QKV4", (layout.qkv / 4) as f64),
        ("SCALE", score_scale(layout)),
    ];
    Step::new(gpu, Stage::Taps, &shader(real), &constants, &buffers, [narrow(layout.heads), 1, 1])
}
