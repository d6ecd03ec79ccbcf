//! `cls_attention.wgsl`: softmax weights of the CLS token, `[heads, tokens]` from `[tokens, qkv]`, for a tap.

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

#[cfg(test)]
mod tests {
    use super::super::attention::tests::Case;
    use super::*;
    use crate::test_util::{assert_close, buffer, frame, gpu, read, reals};

    #[test]
    fn the_first_token_attends() {
        let Some(gpu) = gpu() else { return };
        for real in reals(gpu) {
            for (heads, head_dim, tokens, factor) in
                [(3, 4, 1, 2.0), (2, 15, 63, 2.0), (1, 64, 65, 9.0), (2, 72, 257, 2.0)]
            {
                let case = Case::new(real, heads, head_dim, tokens, factor);
                let output = buffer(gpu, Real::F32, &vec![7.0; heads * tokens + 1]);
                let (frame, qkv) = (frame(gpu, tokens), case.upload(gpu, real));
                let buffers = [&frame, &qkv, &output].map(Into::into);
                let step = step(gpu, &case.layout, real, buffers).expect("a kernel");
                crate::test_util::run(gpu, &[step]);
                let got = read(gpu, Real::F32, &output, heads * tokens + 1);
                let want: Vec<f64> = (0..heads).flat_map(|head| case.weights(0, head)).collect();
                let what = format!("{real:?}, {heads} heads of {head_dim}, {} tokens", case.tokens);
                assert_close(&what, &got[..want.len()], &want, 2e-5);
                assert_eq!(got[want.len()], 7.0, "{what}: beyond the weights");
            }
        }
    }
}
