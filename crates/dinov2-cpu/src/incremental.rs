//! Video: rows (tokens) that have hardly changed keep what a block made of them before.
//!
//! Per block four things are kept of every row: its input when queries, keys and values were last computed from it,
//! these, what attention gave when the output was last computed, and the output. In each block
//!
//! 1. queries, keys and values are computed anew for rows with `|input - kept input| > threshold * |kept input|`
//!    (L2 over the row of the residual stream), and for CLS and registers;
//! 2. all rows attend: any key that has changed reaches every row;
//! 3. projection and MLP run on the rows of step 1, and on those whose attention output has moved beyond the threshold,
//!    measured as in step 1.
//!
//! Rows to compute are gathered below each other, run through the same kernels as whole frames and are scattered back.
//! The input of a row whose output the block before has kept is what it was in the frame before, so that only rows with
//! a new output are compared in step 1; a block whose input is the same, bit for bit, is skipped. With threshold 0 a row
//! is kept only if nothing about it has changed, and features are bit-equal to those without any of this. What is left
//! of the matrices' work is the share of rows; attention is saved only where nothing at all has changed.
//!
//! What it does not do: follow motion. A patch whose content moves by a pixel is a changed patch.

use std::num::NonZeroUsize;

use dinov2_core::{ExtractError, Features, ImageView, PatchGrid, Taps, VitSpec};
use dinov2_kernels::{AlignedBuffer, Epilogue, patch_embed};

use crate::block::{BlockScratch, Cpu, Watch};
use crate::engine::CpuEngine;
use crate::forward::{self, Outputs, Stream};
use crate::load::Block;
use crate::rows::{gather, gather_in_place, relative_distance_exceeds, same_bits, scatter};
use crate::stages::{Stage, StageClock};

/// How far an engine may reuse what it computed for earlier frames of one video.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Incremental {
    threshold: f32,
    refresh: NonZeroUsize,
}

impl Incremental {
    /// Frames from one full computation to the next, unless told otherwise: a second of most videos.
    pub const REFRESH: NonZeroUsize = NonZeroUsize::new(30).unwrap();

    /// Rows are kept while their input differs by at most `threshold`, relative to its length (0: bit for bit), and every
    /// `refresh`-th frame is computed in full. `None` for a threshold that is negative or not finite.
    pub fn new(threshold: f32, refresh: NonZeroUsize) -> Option<Self> {
        (threshold.is_finite() && threshold >= 0.0).then_some(Self { threshold, refresh })
    }
}

/// What is kept from frame to frame.
pub(crate) struct Memory {
    config: Incremental,
    /// Grid of what is kept; `None` while nothing is.
    grid: Option<PatchGrid>,
    /// Frames since the last that was computed in full.
    age: usize,
    /// Centred pixels, `[patches, 3 * patch * patch]`.
    pixels: AlignedBuffer,
    /// Input of the first block, `[n, dim]`.
    embedded: AlignedBuffer,
    blocks: Vec<Kept>,
    /// Rows that were computed anew by the step before, then those among them (and the prefix) that have changed.
    moved: Vec<usize>,
    /// Rows whose output is computed anew.
    stale: Vec<usize>,
    /// Gathered rows of the residual stream, `[m, dim]`.
    rows: AlignedBuffer,
    recomputed: usize,
}

/// What a block keeps.
#[derive(Default)]
struct Kept {
    /// `[n, dim]`.
    input: AlignedBuffer,
    /// `[n, 3 * dim]`.
    qkv: AlignedBuffer,
    /// What attention gave when the output was last computed, `[n, dim]`.
    attended: AlignedBuffer,
    /// `[n, dim]`: also the input of the next block.
    output: AlignedBuffer,
}

impl Memory {
    pub(crate) fn new(config: Incremental, depth: usize) -> Self {
        Self {
            config,
            grid: None,
            age: 0,
            pixels: AlignedBuffer::default(),
            embedded: AlignedBuffer::default(),
            blocks: (0..depth).map(|_| Kept::default()).collect(),
            moved: Vec::new(),
            stale: Vec::new(),
            rows: AlignedBuffer::default(),
            recomputed: 0,
        }
    }

    /// Share of all blocks' rows whose output the last frame computed anew.
    pub(crate) fn recomputed_share(&self, spec: &VitSpec) -> f64 {
        let rows = self.grid.map_or(0, |grid| spec.tokens(grid)) * spec.depth;
        if rows == 0 { 1.0 } else { self.recomputed as f64 / rows as f64 }
    }

    pub(crate) fn extract(
        &mut self,
        engine: &mut CpuEngine,
        image: ImageView<'_>,
        taps: &Taps,
        out: &mut Features,
    ) -> Result<(), ExtractError> {
        let grid = engine.grid_of(&image)?;
        taps.check(&engine.spec)?;
        out.prepare(&engine.spec, grid, taps);
        let mut watch = Watch { clock: StageClock::start(), observer: &mut |_, _, _| {}, block: 0 };
        // Until this frame is done nothing counts as kept, should it fail.
        let everything = self.grid.take() != Some(grid) || self.age + 1 >= self.config.refresh.get();
        self.age = if everything { 0 } else { self.age + 1 };
        self.resize(&engine.spec, grid);
        self.embed(engine, image, grid, everything)?;
        watch.clock.lap(Stage::PatchEmbed);
        self.recomputed = 0;
        let (cpu, weights, scratch) = engine.parts();
        let mut stream = ChangedRows { memory: self, scratch, everything };
        let outputs = Outputs { taps, members: &[0], features: std::slice::from_mut(out) };
        forward::run(cpu, weights, &mut stream, outputs, &mut watch);
        engine.stage_times = watch.clock.times();
        self.grid = Some(grid);
        Ok(())
    }

    fn resize(&mut self, spec: &VitSpec, grid: PatchGrid) {
        let tokens = spec.tokens(grid);
        self.pixels.resize(grid.len() * 3 * spec.patch_size * spec.patch_size);
        self.embedded.resize(tokens * spec.dim);
        self.rows.resize(tokens * spec.dim);
        for kept in &mut self.blocks {
            kept.input.resize(tokens * spec.dim);
            kept.qkv.resize(tokens * 3 * spec.dim);
            kept.attended.resize(tokens * spec.dim);
            kept.output.resize(tokens * spec.dim);
        }
        // So that a frame that changes more than all before it allocates nothing.
        [&mut self.moved, &mut self.stale].into_iter().for_each(|list| {
            list.clear();
            list.reserve(tokens);
        });
    }

    /// Embeds the patches whose pixels have changed and lists their rows in `moved`.
    fn embed(
        &mut self,
        engine: &mut CpuEngine,
        image: ImageView<'_>,
        grid: PatchGrid,
        everything: bool,
    ) -> Result<(), ExtractError> {
        let CpuEngine { spec, isa, pool, weights, position_table, positions, scratch, .. } = engine;
        let positions = positions.get(grid, spec, position_table)?;
        let (dim, prefix, patch_len) =
            (spec.dim, spec.prefix_tokens(), 3 * spec.patch_size * spec.patch_size);
        let pixels = &mut scratch.patch_pixels;
        pixels.resize(grid.len() * patch_len);
        patch_embed::gather_patches(pool, image, grid, spec.patch_size, pixels);
        for (patch, kept) in self.pixels.chunks_exact_mut(patch_len).enumerate() {
            let now = patch * patch_len..(patch + 1) * patch_len;
            if everything || *kept != pixels[now.clone()] {
                kept.copy_from_slice(&pixels[now.clone()]);
                let count = self.moved.len();
                pixels.copy_within(now, count * patch_len);
                self.rows[count * dim..][..dim].copy_from_slice(&positions[(1 + patch) * dim..][..dim]);
                self.moved.push(prefix + patch);
            }
        }
        if everything {
            weights.write_prefix(&positions[..dim], &mut self.embedded[..prefix * dim]);
        }
        let count = self.moved.len();
        if count > 0 {
            let rows = &mut self.rows[..count * dim];
            weights.patch_embed.apply(*isa, pool, Epilogue::Add, &pixels[..count * patch_len], rows);
            scatter(rows, &self.moved, dim, &mut self.embedded);
        }
        Ok(())
    }

    /// Brings what the block keeps up to date and lists in `moved` the rows whose output is new.
    fn run_block(
        &mut self,
        cpu: Cpu<'_>,
        block: &Block,
        scratch: &mut BlockScratch,
        everything: bool,
        watch: &mut Watch<'_>,
    ) {
        let (before, from) = self.blocks.split_at_mut(watch.block);
        let (kept, dim) = (&mut from[0], cpu.spec.dim);
        let stream = before.last().map_or(&self.embedded[..], |kept| &kept.output[..]);
        self.stale.clear();
        if !find_moved(self.config.threshold, cpu.spec, everything, stream, &kept.input, &mut self.moved) {
            self.moved.clear();
            return;
        }
        let rows = &mut self.rows[..self.moved.len() * dim];
        gather(stream, &self.moved, dim, rows);
        scatter(rows, &self.moved, dim, &mut kept.input);
        watch.clock.lap(Stage::Reuse);
        scratch.resize(cpu.spec, self.moved.len());
        scratch.project_qkv(cpu, block, rows, watch);
        scatter(&scratch.qkv, &self.moved, 3 * dim, &mut kept.qkv);
        watch.clock.lap(Stage::Reuse);

        scratch.resize(cpu.spec, stream.len() / dim);
        scratch.attend_in(cpu, &kept.qkv, watch);
        let attended = &mut scratch.input.normed;
        find_stale(self.config.threshold, dim, attended, &kept.attended, &self.moved, &mut self.stale);
        gather_in_place(attended, &self.stale, dim);
        scatter(attended, &self.stale, dim, &mut kept.attended);
        scratch.resize(cpu.spec, self.stale.len());
        let rows = &mut self.rows[..self.stale.len() * dim];
        gather(stream, &self.stale, dim, rows);
        watch.clock.lap(Stage::Reuse);
        scratch.finish(cpu, block, rows, watch);
        scatter(rows, &self.stale, dim, &mut kept.output);
        watch.clock.lap(Stage::Reuse);
        self.recomputed += self.stale.len();
        std::mem::swap(&mut self.moved, &mut self.stale);
    }
}

/// One frame of which only rows that have changed are computed.
struct ChangedRows<'a> {
    memory: &'a mut Memory,
    scratch: &'a mut BlockScratch,
    /// Every row counts as changed.
    everything: bool,
}

impl Stream for ChangedRows<'_> {
    fn run_block(&mut self, cpu: Cpu<'_>, block: &Block, watch: &mut Watch<'_>) {
        self.memory.run_block(cpu, block, self.scratch, self.everything, watch);
    }

    fn qkv(&self, layer: usize) -> &[f32] {
        &self.memory.blocks[layer].qkv
    }

    fn tokens(&self, blocks: usize) -> &[f32] {
        blocks.checked_sub(1).map_or(&self.memory.embedded, |last| &self.memory.blocks[last].output)
    }
}

/// Lists in `stale` the rows of `moved`, and those whose attention output has changed. All lists ascend.
fn find_stale(
    threshold: f32,
    dim: usize,
    attended: &[f32],
    kept: &[f32],
    moved: &[usize],
    stale: &mut Vec<usize>,
) {
    let mut moved = moved.iter().copied().peekable();
    for (row, (now, kept)) in attended.chunks_exact(dim).zip(kept.chunks_exact(dim)).enumerate() {
        if moved.next_if_eq(&row).is_some() || relative_distance_exceeds(threshold, now, kept) {
            stale.push(row);
        }
    }
}

/// Turns `moved`, rows of patches that the step before computed anew, into the rows that this block has to. False if
/// none of these has changed at all: then the block's outputs have not either.
fn find_moved(
    threshold: f32,
    spec: &VitSpec,
    everything: bool,
    stream: &[f32],
    kept: &[f32],
    moved: &mut Vec<usize>,
) -> bool {
    let (dim, prefix) = (spec.dim, spec.prefix_tokens());
    if everything {
        moved.clear();
        moved.extend(0..stream.len() / dim);
        return true;
    }
    let row = |at: usize| at * dim..(at + 1) * dim;
    moved
        .retain(|&at| at >= prefix && relative_distance_exceeds(threshold, &stream[row(at)], &kept[row(at)]));
    let patches = moved.len();
    moved.extend(0..prefix);
    moved.rotate_left(patches);
    patches > 0 || !same_bits(&stream[..prefix * dim], &kept[..prefix * dim])
}
