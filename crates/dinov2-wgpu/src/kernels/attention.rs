//! `attention.wgsl`: multi-head self-attention, `[tokens, attended]` from `[tokens, qkv]`, with the online softmax of FlashAttention.

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
    step_staged(gpu, layout, real, tokens, fits(true), [frame, qkv, output])
}

/// `staged`: queries are held in workgroup memory.
fn step_staged(
    gpu: &Gpu,
    layout: &Layout,
    real: Real,
    tokens: usize,
    staged: bool,
    buffers: [&Buffer; 3],
) -> Result<Step, GpuError> {
    let constants = [
        ("HEADS", layout.heads as f64),
        ("HEAD4", (layout.head / 4) as f64),
        ("QKV4", (layout.qkv / 4) as f64),
        ("OUT4", (layout.attended / 4) as f64),
        ("SCALE", score_scale(layout)),
        ("STAGED", f64::from(staged)),
    ];
    let workgroups =
        [narrow(tokens.div_ceil(QUERIES)), narrow(layout.heads), narrow(layout.head.div_ceil(PART))];
    let buffers = buffers.map(Into::into);
    Step::new(gpu, Stage::Attention, &shader(real), &constants, &buffers, workgroups)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::test_util::{
        assert_close, buffer, cropped, frame, gpu, layout, numbers, padded, read, reals, rounded,
    };

    /// Queries, keys and values under test, `[tokens, 3 * heads * head]`, heads padded with zeros.
    pub(in super::super) struct Case {
        pub(in super::super) layout: Layout,
        pub(in super::super) tokens: usize,
        values: Vec<f32>,
    }

    impl Case {
        /// Queries and keys are random numbers times `factor`; scores then lie within about `factor`² of 0.
        pub(in super::super) fn new(
            real: Real,
            heads: usize,
            head_dim: usize,
            tokens: usize,
            factor: f32,
        ) -> Self {
            let layout = layout(heads, head_dim);
            let dim = heads * head_dim;
            let dense = numbers((head_dim + tokens) as u64, tokens * 3 * dim);
            let scaled =
                dense.iter().zip(0..).map(|(x, at)| if at % (3 * dim) < 2 * dim { x * factor } else { *x });
            let values = rounded(real, &padded(&scaled.collect::<Vec<_>>(), head_dim, layout.head));
            Self { layout, tokens, values }
        }

        /// Scores of a head that rise or fall with the token from -60 to 60, whatever the query.
        fn ramp(real: Real, head_dim: usize, tokens: usize, sign: f32) -> Self {
            let mut case = Self::new(real, 1, head_dim, tokens, 0.0);
            let width = 3 * case.layout.head;
            for (token, row) in case.values.chunks_exact_mut(width).enumerate() {
                let share = token as f32 / (tokens - 1) as f32;
                row[0] = 8.0;
                row[case.layout.head] = sign * (120.0 * share - 60.0) / 8.0 * (head_dim as f32).sqrt();
            }
            case.values = rounded(real, &case.values);
            case
        }

        /// `[tokens, layout.qkv]`.
        pub(in super::super) fn upload(&self, gpu: &Gpu, real: Real) -> Buffer {
            let cols = 3 * self.layout.heads * self.layout.head;
            buffer(gpu, real, &padded(&self.values, cols, self.layout.qkv))
        }

        fn of_head(&self, part: usize, token: usize, head: usize) -> &[f32] {
            let Layout { heads, head: width, .. } = self.layout;
            &self.values[((token * 3 + part) * heads + head) * width..][..width]
        }

        /// Weights of all tokens for a query, which sum to 1.
        pub(in super::super) fn weights(&self, query: usize, head: usize) -> Vec<f64> {
            let query = self.of_head(0, query, head);
            let score = |key| {
                let pairs = query.iter().zip(self.of_head(1, key, head));
                pairs.map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>()
                    / (self.layout.head_dim as f64).sqrt()
            };
            let scores: Vec<f64> = (0..self.tokens).map(score).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exponentials: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
            let total: f64 = exponentials.iter().sum();
            exponentials.iter().map(|exponential| exponential / total).collect()
        }

        /// `[tokens, heads, head]`.
        fn expected(&self) -> Vec<f64> {
            let Layout { heads, head: width, .. } = self.layout;
            let mut out = Vec::with_capacity(self.tokens * heads * width);
            for (query, head) in (0..self.tokens).flat_map(|query| (0..heads).map(move |head| (query, head)))
            {
                let mut sum = vec![0.0; width];
                for (key, weight) in self.weights(query, head).into_iter().enumerate() {
                    let values = self.of_head(2, key, head);
                    sum.iter_mut().zip(values).for_each(|(sum, &value)| *sum += weight * f64::from(value));
                }
                out.extend(sum);
            }
            out
        }

        fn check(&self, gpu: &Gpu, real: Real, staged: bool, tolerance: f64) {
            let Layout { heads, head_dim, head, attended, .. } = self.layout;
            let what =
                format!("{real:?}, {} tokens, {heads} heads of {head_dim}, staged {staged}", self.tokens);
            let most_bytes = gpu.device().limits().max_compute_workgroup_storage_size as usize;
            if workgroup_bytes(&self.layout, real, staged) > most_bytes {
                eprintln!("SKIPPED: {what}: more than {most_bytes} bytes of workgroup memory");
                return;
            }
            let (qkv, output) =
                (self.upload(gpu, real), buffer(gpu, real, &vec![7.0; (self.tokens + 1) * attended]));
            let buffers = [&frame(gpu, self.tokens), &qkv, &output];
            let step = step_staged(gpu, &self.layout, real, self.tokens, staged, buffers).expect("a kernel");
            crate::test_util::run(gpu, &[step]);
            let got = read(gpu, real, &output, (self.tokens + 1) * attended);
            let (rows, behind) = got.split_at(self.tokens * attended);
            assert!(behind.iter().all(|&value| value == 7.0), "{what}: a row beyond the tokens");
            let mut padding = rows.chunks(attended).flat_map(|row| &row[heads * head..]);
            assert!(padding.all(|&value| value == 7.0), "{what}: columns beyond the heads");
            assert_close(&what, &cropped(rows, attended, heads * head), &self.expected(), tolerance);
        }
    }

    fn tolerance(real: Real) -> f64 {
        match real {
            Real::F32 => 2e-6,
            Real::F16 => 5e-4,
        }
    }

    #[test]
    fn heads_of_every_width_attend() {
        let Some(gpu) = gpu() else { return };
        for real in reals(gpu) {
            for (heads, head_dim, tokens) in [(3, 4, 33), (2, 15, 31), (2, 64, 17), (1, 72, 33), (2, 128, 16)]
            {
                let case = Case::new(real, heads, head_dim, tokens, 2.0);
                case.check(gpu, real, head_dim < 72, tolerance(real));
            }
        }
    }

    #[test]
    fn any_number_of_tokens_attends() {
        let Some(gpu) = gpu() else { return };
        for tokens in [1, 2, 15, 16, 17, 31, 32, 33, 257] {
            let case = Case::new(Real::F32, 2, 16, tokens, 2.0);
            case.check(gpu, Real::F32, true, tolerance(Real::F32));
        }
    }

    #[test]
    fn queries_need_not_be_staged() {
        let Some(gpu) = gpu() else { return };
        for (head_dim, tokens) in [(15, 33), (64, 31), (128, 33)] {
            for staged in [false, true] {
                Case::new(Real::F32, 2, head_dim, tokens, 2.0).check(
                    gpu,
                    Real::F32,
                    staged,
                    tolerance(Real::F32),
                );
            }
        }
    }

    /// Weights that pass f32's range by far: 60 in the exponent is good to 60 * 2^-24.
    #[test]
    fn large_scores_neither_overflow_nor_vanish() {
        let Some(gpu) = gpu() else { return };
        for real in reals(gpu) {
            let tolerance = if real == Real::F32 { 5e-5 } else { 1e-3 };
            for sign in [-1.0, 1.0] {
                Case::ramp(real, 64, 257, sign).check(gpu, real, true, tolerance);
            }
            Case::new(real, 2, 64, 65, 9.0).check(gpu, real, true, tolerance);
        }
    }
}
