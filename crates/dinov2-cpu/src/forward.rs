//! The forward pass behind the patch embedding: blocks one after the other, what taps ask for, the final LayerNorm.
//!
//! A [`Stream`] decides which rows a block computes: those of whole frames (`engine.rs`) or those that have changed since the frame
//! before (`incremental.rs`). `tokens: [frames, n, dim]` is the residual stream in both.

use dinov2_core::{Features, Taps};
use dinov2_kernels::layer_norm::layer_norm;

use crate::block::{Cpu, Watch};
use crate::load::{Block, Weights};
use crate::stages::Stage;
use crate::taps::{write_attention_taps, write_layer_taps};

/// The residual stream of one or more frames of one grid, as blocks bring it forward.
pub(crate) trait Stream {
    /// Runs the next block, whose number is `watch.block`.
    fn run_block(&mut self, cpu: Cpu<'_>, block: &Block, watch: &mut Watch<'_>);

    /// Queries, keys and values of block `layer`, the last that ran, `[frames, n, 3 * dim]`.
    fn qkv(&self, layer: usize) -> &[f32];

    /// The stream after `blocks` blocks, all that ran, `[frames, n, dim]`.
    fn tokens(&self, blocks: usize) -> &[f32];
}

/// Where the features of a stream's frames go.
pub(crate) struct Outputs<'a> {
    pub(crate) taps: &'a Taps,
    /// Which of `features` each frame of the stream fills; all are prepared for its grid and for `taps`.
    pub(crate) members: &'a [usize],
    pub(crate) features: &'a mut [Features],
}

impl Outputs<'_> {
    /// Calls `write` for each frame with its part of `rows: [frames, …]` and its features.
    fn for_each_frame(&mut self, rows: &[f32], mut write: impl FnMut(&[f32], &Taps, &mut Features)) {
        let frame_len = rows.len() / self.members.len();
        for (&member, rows) in self.members.iter().zip(rows.chunks_exact(frame_len)) {
            write(rows, self.taps, &mut self.features[member]);
        }
    }
}

/// Runs every block and writes taps and final tokens.
pub(crate) fn run(
    cpu: Cpu<'_>,
    weights: &Weights,
    stream: &mut impl Stream,
    mut outputs: Outputs<'_>,
    watch: &mut Watch<'_>,
) {
    for (layer, block) in weights.blocks.iter().enumerate() {
        watch.block = layer;
        stream.run_block(cpu, block, watch);
        outputs.for_each_frame(stream.qkv(layer), |qkv, taps, features| {
            write_attention_taps(cpu, layer, qkv, taps, features);
        });
        outputs.for_each_frame(stream.tokens(layer + 1), |tokens, _, features| {
            write_layer_taps(cpu, &weights.norm, layer, tokens, features);
        });
        watch.clock.lap(Stage::Taps);
    }
    outputs.for_each_frame(stream.tokens(weights.blocks.len()), |tokens, _, features| {
        layer_norm(cpu.isa, cpu.pool, &weights.norm.params(), tokens, features.tokens_mut());
    });
    watch.clock.lap(Stage::LayerNorm);
}
