//! The steps of a transformer block. They take any number of rows: those of one frame, of several below each other, or
//! only some of a frame's.

use dinov2_core::{MlpKind, VitSpec};
use dinov2_kernels::attention::{AttentionShape, KeyValuePanels, attention};
use dinov2_kernels::attention_i16::{self, KeyValuePanelsI16, attention_i16};
use dinov2_kernels::{AlignedBuffer, Epilogue, Isa, Pool};

use crate::linear::InputScratch;
use crate::load::Block;
use crate::stages::{Stage, StageClock};
use crate::{CpuPrecision, Matrix, Observer};

/// What every step needs: instruction set, threads, precision and the model's sizes.
#[derive(Clone, Copy)]
pub(crate) struct Cpu<'a> {
    pub(crate) isa: Isa,
    pub(crate) pool: &'a Pool,
    pub(crate) precision: CpuPrecision,
    pub(crate) spec: &'a VitSpec,
}

impl<'a> Cpu<'a> {
    fn kernels(self) -> (Isa, &'a Pool) {
        (self.isa, self.pool)
    }

    pub(crate) fn attention_shape(self, tokens: usize) -> AttentionShape {
        AttentionShape { tokens, heads: self.spec.heads, head_dim: self.spec.head_dim() }
    }
}

/// What is recorded while blocks run: times, and the matrices' inputs for an observer.
pub(crate) struct Watch<'a> {
    pub(crate) clock: StageClock,
    pub(crate) observer: &'a mut Observer<'a>,
    /// Number of the block that runs, from 0.
    pub(crate) block: usize,
}

/// Intermediate results of a block, sized for the largest number of rows so far.
#[derive(Default)]
pub(crate) struct BlockScratch {
    /// A LayerNorm's output. Its floats also serve as attention's output.
    pub(crate) input: InputScratch,
    /// `[rows, 3 * dim]`.
    pub(crate) qkv: AlignedBuffer,
    /// `[rows, mlp_hidden]`.
    hidden: AlignedBuffer,
    panels: Panels,
}

/// Packed keys and values.
#[derive(Default)]
struct Panels {
    f32: KeyValuePanels,
    i16: KeyValuePanelsI16,
}

impl Panels {
    /// `out: [n, dim]` from `qkv: [n, 3 * dim]` of one frame.
    fn attend(&mut self, cpu: Cpu<'_>, qkv: &[f32], out: &mut [f32]) {
        let shape = cpu.attention_shape(qkv.len() / (3 * cpu.spec.dim));
        if cpu.precision != CpuPrecision::F32 && attention_i16::is_supported(cpu.isa, shape) {
            attention_i16(cpu.isa, cpu.pool, shape, qkv, &mut self.i16, out);
        } else {
            attention(cpu.isa, cpu.pool, shape, qkv, &mut self.f32, out);
        }
    }
}

impl BlockScratch {
    pub(crate) fn resize(&mut self, spec: &VitSpec, rows: usize) {
        self.input.normed.resize(rows * spec.dim);
        self.qkv.resize(rows * 3 * spec.dim);
        self.hidden.resize(rows * spec.mlp_hidden);
    }

    /// Queries, keys and values of `tokens: [rows, dim]`, into `qkv`.
    pub(crate) fn project_qkv(&mut self, cpu: Cpu<'_>, block: &Block, tokens: &[f32], watch: &mut Watch<'_>) {
        block.qkv.prepare_normed(cpu.kernels(), &block.norm1.params(), tokens, &mut self.input);
        watch.clock.lap(Stage::LayerNorm);
        (watch.observer)(watch.block, Matrix::Qkv, &self.input.normed);
        block.qkv.apply_prepared(cpu.kernels(), Epilogue::Store, &self.input, &mut self.qkv);
        watch.clock.lap(Stage::Qkv);
    }

    /// Attention within each frame of `tokens` tokens of `qkv`, for [`Self::finish`].
    pub(crate) fn attend(&mut self, cpu: Cpu<'_>, tokens: usize, watch: &mut Watch<'_>) {
        let Self { input, qkv, panels, .. } = self;
        let dim = cpu.spec.dim;
        let frames = qkv.chunks_exact(tokens * 3 * dim).zip(input.normed.chunks_exact_mut(tokens * dim));
        frames.for_each(|(qkv, out)| panels.attend(cpu, qkv, out));
        watch.clock.lap(Stage::Attention);
    }

    /// As [`Self::attend`] for one frame whose queries, keys and values are not in `qkv` but in `frame: [n, 3 * dim]`.
    pub(crate) fn attend_in(&mut self, cpu: Cpu<'_>, frame: &[f32], watch: &mut Watch<'_>) {
        self.panels.attend(cpu, frame, &mut self.input.normed);
        watch.clock.lap(Stage::Attention);
    }

    /// The projection after attention, then LayerNorm and MLP; both are added to `tokens: [rows, dim]`.
    pub(crate) fn finish(&mut self, cpu: Cpu<'_>, block: &Block, tokens: &mut [f32], watch: &mut Watch<'_>) {
        let Self { input, hidden, .. } = self;
        let kernels = cpu.kernels();
        (watch.observer)(watch.block, Matrix::Projection, &input.normed);
        block.projection.apply(kernels, Epilogue::Add, &input.normed, &mut input.rounded, tokens);
        watch.clock.lap(Stage::Projection);
        block.mlp_in.prepare_normed(kernels, &block.norm2.params(), tokens, input);
        watch.clock.lap(Stage::LayerNorm);
        (watch.observer)(watch.block, Matrix::MlpIn, &input.normed);
        let activation = match cpu.spec.mlp {
            MlpKind::Gelu => Epilogue::Gelu,
            MlpKind::SwiGlu => Epilogue::SwiGlu,
        };
        block.mlp_in.apply_prepared(kernels, activation, input, hidden);
        (watch.observer)(watch.block, Matrix::MlpOut, hidden);
        block.mlp_out.apply(kernels, Epilogue::Add, hidden, &mut input.rounded, tokens);
        watch.clock.lap(Stage::Mlp);
    }
}
