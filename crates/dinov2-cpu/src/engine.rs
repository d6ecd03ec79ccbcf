//! The engine: weights packed once, images grouped by grid, patch embedding; then `forward.rs`.
//!
//! `tokens: [frames, n, dim]` holds the frames of one group below each other, CLS first, then registers, then patches. Nothing is
//! allocated after the first frame of a grid. It does not resize images, and computes every row of a frame; `incremental.rs` does not.

use dinov2_core::{ExtractError, Extractor, Features, ImageView, PatchGrid, Taps, VitSpec, limits};
use dinov2_kernels::attention::AttentionShape;
use dinov2_kernels::attention_i16;
use dinov2_kernels::{AlignedBuffer, Epilogue, Isa, Pool, patch_embed};
use dinov2_weights::Model;

use crate::block::{BlockScratch, Cpu, Watch};
use crate::forward::{self, Outputs, Stream};
use crate::incremental::Memory;
use crate::load::{Block, LoadError, Weights};
use crate::positions::PositionCache;
use crate::stages::{Stage, StageClock, StageTimes};
use crate::{CpuConfig, CpuPrecision, Observer};

/// Runs a model on the CPU.
pub struct CpuEngine {
    pub(crate) spec: VitSpec,
    pub(crate) isa: Isa,
    precision: CpuPrecision,
    pub(crate) pool: Pool,
    pub(crate) weights: Weights,
    /// As stored: `[1 + rows * cols, dim]`.
    pub(crate) position_table: Vec<f32>,
    pub(crate) positions: PositionCache,
    pub(crate) scratch: Scratch,
    /// Indices of the images of a batch that run together.
    members: Vec<usize>,
    /// What an incremental engine keeps. Boxed, so that it is cheaply taken out while it works on the engine.
    memory: Option<Box<Memory>>,
    pub(crate) stage_times: StageTimes,
}

/// Activations of the frames that run together, one below the other; sized for the most so far.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[patches, 3 * patch * patch]` of one frame.
    pub(crate) patch_pixels: AlignedBuffer,
    /// The residual stream, `[frames, n, dim]`.
    tokens: AlignedBuffer,
    block: BlockScratch,
}

/// Images of one grid that run together.
struct Group<'a> {
    grid: PatchGrid,
    images: &'a [ImageView<'a>],
    /// Which of the images; never empty.
    members: &'a [usize],
}

impl CpuEngine {
    /// Unpacks a model file's weights for this CPU.
    ///
    /// # Errors
    /// The model file does not yield a tensor that its spec calls for.
    pub fn new(model: &Model, config: CpuConfig) -> Result<Self, LoadError> {
        let pool = Pool::new(config.threads);
        Ok(Self {
            spec: model.spec().clone(),
            isa: config.isa,
            precision: config.precision,
            weights: Weights::load(model, config.isa, config.precision, &pool)?,
            position_table: model.f32("pos_embed").map_err(LoadError::from)?,
            positions: PositionCache::default(),
            scratch: Scratch::default(),
            members: Vec::new(),
            memory: config.incremental.map(|config| Box::new(Memory::new(config, model.spec().depth))),
            stage_times: StageTimes::default(),
            pool,
        })
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Arithmetic in use.
    pub fn precision(&self) -> CpuPrecision {
        self.precision
    }

    /// Whether attention multiplies in 16 bits ([`attention_i16`]).
    pub fn has_attention_i16(&self) -> bool {
        let shape = AttentionShape { tokens: 1, heads: self.spec.heads, head_dim: self.spec.head_dim() };
        self.precision != CpuPrecision::F32 && attention_i16::is_supported(self.isa, shape)
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Of an incremental engine, the share of all blocks' rows that the last frame computed anew.
    pub fn recomputed_share(&self) -> Option<f64> {
        self.memory.as_ref().map(|memory| memory.recomputed_share(&self.spec))
    }

    /// What runs blocks, the weights, and where blocks work.
    pub(crate) fn parts(&mut self) -> (Cpu<'_>, &Weights, &mut BlockScratch) {
        let Self { spec, isa, precision, pool, weights, scratch, .. } = self;
        (Cpu { isa: *isa, pool, precision: *precision, spec }, weights, &mut scratch.block)
    }

    /// Where the last frame's time went.
    pub fn stage_times(&self) -> StageTimes {
        self.stage_times
    }

    /// Fills `tokens` with CLS, registers and embedded patches of each frame.
    fn embed(&mut self, group: &Group<'_>) -> Result<(), ExtractError> {
        let Self { spec, isa, pool, weights, position_table, positions, scratch, .. } = self;
        let (dim, grid) = (spec.dim, group.grid);
        let positions = positions.get(grid, spec, position_table)?;
        let frames = scratch.tokens.chunks_exact_mut(spec.tokens(grid) * dim);
        for (&member, tokens) in group.members.iter().zip(frames) {
            let image = group.images[member];
            patch_embed::gather_patches(pool, image, grid, spec.patch_size, &mut scratch.patch_pixels);
            let (prefix, patches) = tokens.split_at_mut(spec.prefix_tokens() * dim);
            weights.write_prefix(&positions[..dim], prefix);
            patches.copy_from_slice(&positions[dim..]);
            weights.patch_embed.apply(*isa, pool, Epilogue::Add, &scratch.patch_pixels, patches);
        }
        Ok(())
    }

    /// As [`Extractor::extract`], and shows the input of every matrix of the blocks to `observer`, to calibrate a
    /// quantizer: `observer(block, matrix, input)`, `input: [n, k]` in f32.
    ///
    /// # Errors
    /// As [`Extractor::extract`].
    ///
    /// # Panics
    /// When the engine does not run in f32.
    pub fn extract_observed(
        &mut self,
        image: ImageView<'_>,
        out: &mut Features,
        observer: &mut Observer<'_>,
    ) -> Result<(), ExtractError> {
        assert_eq!(self.precision, CpuPrecision::F32, "extract_observed: an engine in f32");
        self.run(&[image], &Taps::none(), std::slice::from_mut(out), observer)
    }

    fn run(
        &mut self,
        images: &[ImageView<'_>],
        taps: &Taps,
        out: &mut [Features],
        observer: &mut Observer<'_>,
    ) -> Result<(), ExtractError> {
        ExtractError::check_lengths(images, out)?;
        taps.check(&self.spec)?;
        images.iter().try_for_each(|image| self.grid_of(image).map(drop))?;
        let mut watch = Watch { clock: StageClock::start(), observer, block: 0 };
        let mut members = std::mem::take(&mut self.members);
        let outcome = self.run_by_grid(images, &mut members, taps, out, &mut watch);
        self.members = members;
        self.stage_times = watch.clock.times();
        outcome
    }

    /// Runs the images of each grid together, in the order in which the grids first appear.
    fn run_by_grid(
        &mut self,
        images: &[ImageView<'_>],
        members: &mut Vec<usize>,
        taps: &Taps,
        out: &mut [Features],
        watch: &mut Watch<'_>,
    ) -> Result<(), ExtractError> {
        for (first, image) in images.iter().enumerate() {
            if images[..first].iter().any(|earlier| same_size(earlier, image)) {
                continue;
            }
            members.clear();
            members.extend((first..images.len()).filter(|&other| same_size(&images[other], image)));
            let grid = self.grid_of(image)?;
            for members in members.chunks(limits::MAX_PATCHES / grid.len()) {
                self.run_group(&Group { grid, images, members }, taps, out, watch)?;
            }
        }
        Ok(())
    }

    pub(crate) fn grid_of(&self, image: &ImageView<'_>) -> Result<PatchGrid, ExtractError> {
        let grid = image.grid(self.spec.patch_size)?;
        if grid.len() > limits::MAX_PATCHES {
            return Err(ExtractError::TooManyPatches { patches: grid.len(), most: limits::MAX_PATCHES });
        }
        Ok(grid)
    }

    fn run_group(
        &mut self,
        group: &Group<'_>,
        taps: &Taps,
        out: &mut [Features],
        watch: &mut Watch<'_>,
    ) -> Result<(), ExtractError> {
        let tokens_per_frame = self.spec.tokens(group.grid);
        let rows = group.members.len() * tokens_per_frame;
        group.members.iter().for_each(|&member| out[member].prepare(&self.spec, group.grid, taps));
        let patch_len = 3 * self.spec.patch_size * self.spec.patch_size;
        self.scratch.patch_pixels.resize(group.grid.len() * patch_len);
        self.scratch.tokens.resize(rows * self.spec.dim);
        self.scratch.block.resize(&self.spec, rows);
        self.embed(group)?;
        watch.clock.lap(Stage::PatchEmbed);

        let Self {
            spec, isa, precision, pool, weights, scratch: Scratch { tokens, block: scratch, .. }, ..
        } = self;
        let cpu = Cpu { isa: *isa, pool, precision: *precision, spec };
        let mut stream = WholeFrames { tokens, scratch, tokens_per_frame };
        let outputs = Outputs { taps, members: group.members, features: out };
        forward::run(cpu, weights, &mut stream, outputs, watch);
        Ok(())
    }
}

/// Frames of which every row is computed.
struct WholeFrames<'a> {
    /// `[frames, n, dim]`.
    tokens: &'a mut [f32],
    scratch: &'a mut BlockScratch,
    tokens_per_frame: usize,
}

impl Stream for WholeFrames<'_> {
    fn run_block(&mut self, cpu: Cpu<'_>, block: &Block, watch: &mut Watch<'_>) {
        self.scratch.project_qkv(cpu, block, self.tokens, watch);
        self.scratch.attend(cpu, self.tokens_per_frame, watch);
        self.scratch.finish(cpu, block, self.tokens, watch);
    }

    fn qkv(&self, _layer: usize) -> &[f32] {
        &self.scratch.qkv
    }

    fn tokens(&self, _blocks: usize) -> &[f32] {
        self.tokens
    }
}

fn same_size(left: &ImageView<'_>, right: &ImageView<'_>) -> bool {
    (left.width_px(), left.height_px()) == (right.width_px(), right.height_px())
}

impl Extractor for CpuEngine {
    fn spec(&self) -> &VitSpec {
        &self.spec
    }

    fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError> {
        let Some(mut memory) = self.memory.take() else {
            return self.run(&[image], taps, std::slice::from_mut(out), &mut |_, _, _| {});
        };
        let outcome = memory.extract(self, image, taps, out);
        self.memory = Some(memory);
        outcome
    }

    /// Images of one grid run as one, their tokens below each other in every matrix; an incremental engine takes them
    /// one after the other.
    fn extract_batch(
        &mut self,
        images: &[ImageView<'_>],
        taps: &Taps,
        out: &mut [Features],
    ) -> Result<(), ExtractError> {
        if self.memory.is_none() {
            return self.run(images, taps, out, &mut |_, _, _| {});
        }
        ExtractError::check_lengths(images, out)?;
        images.iter().zip(out).try_for_each(|(image, out)| self.extract(*image, taps, out))
    }
}
