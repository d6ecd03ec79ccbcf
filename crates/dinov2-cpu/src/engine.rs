use std::num::NonZeroUsize;

use dinov2_core::{
    ExtractError, Extractor, Facet, Features, ImageView, MlpKind, PatchGrid, Tap, Taps, VitSpec, limits,
};
use dinov2_kernels::Epilogue;
use dinov2_kernels::attention::{AttentionShape, KeyValuePanels, attention, cls_attention};
use dinov2_kernels::attention_i16::{self, KeyValuePanelsI16, attention_i16};
use dinov2_kernels::layer_norm::layer_norm;
use dinov2_kernels::{AlignedBuffer, Isa, Pool, patch_embed};
use dinov2_weights::{Model, position};

use crate::linear::InputScratch;
use crate::load::{Block, LoadError, Weights};
use crate::stages::{Stage, StageClock, StageTimes};

/// How a [`CpuEngine`] is set up.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CpuConfig {
    /// Threads, the caller's included.
    pub threads: NonZeroUsize,
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Arithmetic of the blocks.
    pub precision: CpuPrecision,
}

/// Arithmetic of the transformer blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuPrecision {
    /// 32-bit floats throughout.
    F32,
    /// Matrices in 8 bits: weights per output channel, activations per token, quantised as they come. Attention in
    /// 16-bit integers where the CPU gains by it. Residual stream, LayerNorm, GELU and softmax stay f32.
    Int8,
}

/// A matrix of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Matrix {
    /// Queries, keys and values.
    Qkv,
    /// After attention.
    Projection,
    /// `fc1`, or the gated `w12`.
    MlpIn,
    /// `fc2` or `w3`.
    MlpOut,
}

/// Sees the input of a block's matrix: `(block, matrix, input: [n, k])`.
pub type Observer<'a> = dyn FnMut(usize, Matrix, &[f32]) + 'a;

impl Default for CpuConfig {
    /// f32, one thread per physical core that this process may use, and the widest instruction set of the CPU.
    fn default() -> Self {
        Self { threads: crate::default_threads(), isa: Isa::detect(), precision: CpuPrecision::F32 }
    }
}

impl CpuConfig {
    /// The default with this number of threads.
    pub fn with_threads(threads: NonZeroUsize) -> Self {
        Self { threads, ..Self::default() }
    }
}

/// Runs a model on the CPU.
pub struct CpuEngine {
    spec: VitSpec,
    isa: Isa,
    precision: CpuPrecision,
    pool: Pool,
    weights: Weights,
    /// As stored: `[1 + rows * cols, dim]`.
    position_table: Vec<f32>,
    positions: PositionCache,
    scratch: Scratch,
    stage_times: StageTimes,
}

/// Position tables of the grids seen lately, each `[1 + rows * cols, dim]`; the most recently used comes last.
#[derive(Default)]
struct PositionCache {
    tables: Vec<(PatchGrid, Vec<f32>)>,
}

impl PositionCache {
    /// Folders of pictures rarely mix more aspect ratios than this within a short run.
    const CAPACITY: usize = 8;

    /// The table of `grid`, resampled from `stored` if it is not at hand.
    fn get(&mut self, grid: PatchGrid, spec: &VitSpec, stored: &[f32]) -> Result<&[f32], ExtractError> {
        match self.tables.iter().position(|(cached, _)| *cached == grid) {
            Some(found) => self.tables[found..].rotate_left(1),
            None => {
                let table = position::resample(stored, spec.position_table, grid, spec.position_convention);
                if self.tables.len() == Self::CAPACITY {
                    self.tables.remove(0);
                }
                self.tables.push((grid, table.map_err(ExtractError::Engine)?));
            }
        }
        Ok(self.tables.last().map_or(&[], |(_, table)| table))
    }
}

/// Activations of one frame, sized for the largest grid so far.
#[derive(Default)]
struct Scratch {
    /// `[patches, 3 * patch * patch]`.
    patch_pixels: AlignedBuffer,
    /// The residual stream, `[n, dim]`.
    tokens: AlignedBuffer,
    /// A LayerNorm's output. Its floats also serve as attention's output.
    input: InputScratch,
    /// `[n, 3 * dim]`.
    qkv: AlignedBuffer,
    /// `[n, mlp_hidden]`.
    hidden: AlignedBuffer,
    key_value: KeyValuePanels,
    key_value_i16: KeyValuePanelsI16,
}

impl Scratch {
    fn resize(&mut self, spec: &VitSpec, grid: PatchGrid) {
        let tokens = spec.tokens(grid);
        self.patch_pixels.resize(grid.len() * 3 * spec.patch_size * spec.patch_size);
        self.tokens.resize(tokens * spec.dim);
        self.input.normed.resize(tokens * spec.dim);
        self.qkv.resize(tokens * 3 * spec.dim);
        self.hidden.resize(tokens * spec.mlp_hidden);
    }
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
        self.precision == CpuPrecision::Int8 && attention_i16::is_supported(self.isa, shape)
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Where the last frame's time went.
    pub fn stage_times(&self) -> StageTimes {
        self.stage_times
    }

    /// Fills `tokens` with CLS, registers and embedded patches.
    fn embed(&mut self, image: ImageView<'_>, grid: PatchGrid) -> Result<(), ExtractError> {
        let Self { spec, isa, pool, weights, position_table, positions, scratch, .. } = self;
        let dim = spec.dim;
        patch_embed::gather_patches(pool, image, grid, spec.patch_size, &mut scratch.patch_pixels);
        let positions = positions.get(grid, spec, position_table)?;
        let (prefix, patches) = scratch.tokens.split_at_mut(spec.prefix_tokens() * dim);
        let (cls, registers) = prefix.split_at_mut(dim);
        for ((slot, token), position) in cls.iter_mut().zip(&weights.cls).zip(&positions[..dim]) {
            *slot = token + position;
        }
        registers.copy_from_slice(&weights.registers);
        patches.copy_from_slice(&positions[dim..]);
        weights.patch_embed.apply(*isa, pool, Epilogue::Add, &scratch.patch_pixels, patches);
        Ok(())
    }

    /// Runs one block on the residual stream and writes the facets that are asked for.
    fn run_block(
        &mut self,
        index: usize,
        taps: &Taps,
        out: &mut Features,
        clock: &mut StageClock,
        observer: &mut Observer<'_>,
    ) {
        let in_i16 = self.has_attention_i16();
        let Self { spec, isa, pool, weights, scratch, .. } = self;
        let cpu = (*isa, &*pool);
        let Scratch { tokens, input, qkv, hidden, key_value, key_value_i16, .. } = scratch;
        let block: &Block = &weights.blocks[index];
        let shape =
            AttentionShape { tokens: tokens.len() / spec.dim, heads: spec.heads, head_dim: spec.head_dim() };

        block.qkv.prepare_normed(cpu, &block.norm1.params(), tokens, input);
        clock.lap(Stage::LayerNorm);
        observer(index, Matrix::Qkv, &input.normed);
        block.qkv.apply_prepared(cpu, Epilogue::Store, input, qkv);
        clock.lap(Stage::Qkv);
        if in_i16 {
            attention_i16(*isa, pool, shape, qkv, key_value_i16, &mut input.normed);
        } else {
            attention(*isa, pool, shape, qkv, key_value, &mut input.normed);
        }
        clock.lap(Stage::Attention);
        write_attention_taps(spec, index, shape, qkv, taps, out);
        clock.lap(Stage::Taps);
        observer(index, Matrix::Projection, &input.normed);
        block.projection.apply(cpu, Epilogue::Add, &input.normed, &mut input.quantised, tokens);
        clock.lap(Stage::Projection);
        block.mlp_in.prepare_normed(cpu, &block.norm2.params(), tokens, input);
        clock.lap(Stage::LayerNorm);
        observer(index, Matrix::MlpIn, &input.normed);
        let activation = match spec.mlp {
            MlpKind::Gelu => Epilogue::Gelu,
            MlpKind::SwiGlu => Epilogue::SwiGlu,
        };
        block.mlp_in.apply_prepared(cpu, activation, input, hidden);
        observer(index, Matrix::MlpOut, hidden);
        block.mlp_out.apply(cpu, Epilogue::Add, hidden, &mut input.quantised, tokens);
        clock.lap(Stage::Mlp);
    }

    /// Writes the tokens after block `layer` where a tap asks for them.
    fn write_layer_taps(&self, layer: usize, out: &mut Features) {
        if let Some(values) = out.tap_mut(Tap::Layer { layer, norm: false }) {
            values.copy_from_slice(&self.scratch.tokens);
        }
        if let Some(values) = out.tap_mut(Tap::Layer { layer, norm: true }) {
            self.final_norm(values);
        }
    }

    fn final_norm(&self, output: &mut [f32]) {
        layer_norm(self.isa, &self.pool, &self.weights.norm.params(), &self.scratch.tokens, output);
    }

    /// As [`Extractor::extract`], and shows the input of every matrix of the blocks to `observer`, to calibrate a
    /// quantiser: `observer(block, matrix, input)`, `input: [n, k]` in f32.
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
        self.run(image, &Taps::none(), out, observer)
    }

    fn run(
        &mut self,
        image: ImageView<'_>,
        taps: &Taps,
        out: &mut Features,
        observer: &mut Observer<'_>,
    ) -> Result<(), ExtractError> {
        let grid = image.grid(self.spec.patch_size)?;
        taps.check(&self.spec)?;
        if grid.len() > limits::MAX_PATCHES {
            return Err(ExtractError::TooManyPatches { patches: grid.len(), most: limits::MAX_PATCHES });
        }
        out.prepare(&self.spec, grid, taps);
        self.scratch.resize(&self.spec, grid);
        let mut clock = StageClock::start();
        self.embed(image, grid)?;
        clock.lap(Stage::PatchEmbed);
        for layer in 0..self.spec.depth {
            self.run_block(layer, taps, out, &mut clock, observer);
            self.write_layer_taps(layer, out);
            clock.lap(Stage::Taps);
        }
        self.final_norm(out.tokens_mut());
        clock.lap(Stage::LayerNorm);
        self.stage_times = clock.times();
        Ok(())
    }
}

/// Writes facets of block `layer`, and the attention of CLS if it is the last.
fn write_attention_taps(
    spec: &VitSpec,
    layer: usize,
    shape: AttentionShape,
    qkv: &[f32],
    taps: &Taps,
    out: &mut Features,
) {
    for tap in taps.iter() {
        let Some(values) = out.tap_mut(tap) else { continue };
        match tap {
            Tap::Facet { layer: wanted, facet } if wanted == layer => {
                let part = match facet {
                    Facet::Query => 0,
                    Facet::Key => 1,
                    Facet::Value => 2,
                };
                let tokens = qkv.chunks_exact(3 * spec.dim).zip(values.chunks_exact_mut(spec.dim));
                tokens
                    .for_each(|(token, value)| value.copy_from_slice(&token[part * spec.dim..][..spec.dim]));
            }
            Tap::ClsAttention if layer + 1 == spec.depth => cls_attention(shape, qkv, values),
            _ => {}
        }
    }
}

impl Extractor for CpuEngine {
    fn spec(&self) -> &VitSpec {
        &self.spec
    }

    fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError> {
        self.run(image, taps, out, &mut |_, _, _| {})
    }
}
