//! Everything about frames of one grid that does not change from frame to frame: the dispatches with their buffers, and
//! where the results lie.

use dinov2_core::{ExtractError, Facet, PatchGrid, Tap, Taps, VitSpec};
use dinov2_weights::position;
use wgpu::{Buffer, BufferUsages};

use crate::activations::Activations;
use crate::frame::Frame;
use crate::kernels::columns::Columns;
use crate::kernels::product::{Activation, Output, Product};
use crate::kernels::{
    Real, attention, cls_attention, columns, layer_norm, layer_norm_quantized, patch_rows, quantize,
};
use crate::layout::Layout;
use crate::matrix::{Form, Matrix};
use crate::step::{Slice, Stage, Step};
use crate::tuning::{self, Input};
use crate::weights::{Block, Numbers, Weights, mlp_activation};
use crate::{Gpu, GpuError};

/// Parts of a buffer that are bound apart begin at a multiple of this: WebGPU's default limit.
const OFFSET_ALIGN: u64 = 256;

/// Where one result lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    /// Numbers of a row without padding; `stride` is the distance from row to row.
    pub(crate) width: usize,
    pub(crate) stride: usize,
    pub(crate) rows: usize,
}

impl Place {
    fn bytes(&self) -> u64 {
        (self.rows * self.stride * 4) as u64
    }
}

/// What a plan is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purpose {
    pub(crate) grid: PatchGrid,
    /// What is read back beside the final tokens.
    pub(crate) taps: Taps,
}

/// How a model runs on frames of one grid.
pub(crate) struct Plan {
    pub(crate) purpose: Purpose,
    pub(crate) steps: Vec<Step>,
    /// Tokens that a frame starts from.
    pub(crate) initial: Buffer,
    /// f32.
    pub(crate) results: Buffer,
    pub(crate) places: Places,
}

/// Where the results of a frame lie.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) tokens: Place,
    /// In the order of the taps.
    pub(crate) taps: Vec<Place>,
    /// Of all results.
    pub(crate) bytes: u64,
}

impl Places {
    fn new(spec: &VitSpec, layout: &Layout, purpose: &Purpose) -> Self {
        let count = spec.tokens(purpose.grid);
        let tokens = Place { offset: 0, width: spec.dim, stride: layout.tokens, rows: count };
        let mut bytes = tokens.bytes().next_multiple_of(OFFSET_ALIGN);
        let mut place = |rows, width, stride| {
            let place = Place { offset: bytes, width, stride, rows };
            bytes = (bytes + place.bytes()).next_multiple_of(OFFSET_ALIGN);
            place
        };
        let of_tap = |tap| match tap {
            Tap::Layer { norm: true, .. } => place(count, spec.dim, layout.tokens),
            Tap::Layer { norm: false, .. } | Tap::Facet { .. } => place(count, spec.dim, spec.dim),
            Tap::ClsAttention => place(spec.heads, count, count),
        };
        Self { tokens, taps: purpose.taps.iter().map(of_tap).collect(), bytes }
    }
}

/// What a plan is made of.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) spec: &'a VitSpec,
    pub(crate) layout: &'a Layout,
    pub(crate) numbers: Numbers,
    pub(crate) weights: &'a Weights,
    pub(crate) activations: &'a Activations,
}

impl Plan {
    pub(crate) fn new(parts: Parts<'_>, purpose: Purpose) -> Result<Self, ExtractError> {
        let Parts { gpu, spec, layout, weights, .. } = parts;
        let grid = purpose.grid;
        let positions =
            position::resample(&weights.position_table, spec.position_table, grid, spec.position_convention)
                .map_err(|problem| ExtractError::failed(crate::BACKEND, problem))?;
        let initial = weights.initial_tokens(layout, &positions, layout.rows(grid));
        let usage = BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let initial_buffer = gpu.buffer("initial tokens", (initial.len() * 4) as u64, usage)?;
        gpu.queue().write_buffer(&initial_buffer, 0, bytemuck::cast_slice(&initial));
        let places = Places::new(spec, layout, &purpose);
        let results = gpu.buffer("results", places.bytes, BufferUsages::STORAGE | BufferUsages::COPY_SRC)?;
        let frame = Frame::new(layout, grid).upload(gpu)?;
        let builder = Builder { parts, grid, tokens: spec.tokens(grid), frame: &frame, results: &results };
        let steps = builder.steps(&purpose.taps, &places)?;
        Ok(Self { purpose, steps, initial: initial_buffer, results, places })
    }
}

struct Builder<'a> {
    parts: Parts<'a>,
    grid: PatchGrid,
    tokens: usize,
    frame: &'a Buffer,
    results: &'a Buffer,
}

impl Builder<'_> {
    fn steps(&self, taps: &Taps, places: &Places) -> Result<Vec<Step>, GpuError> {
        let Parts { gpu, layout, weights, activations, .. } = self.parts;
        let Activations { pixels, patch_rows, tokens, .. } = activations;
        let mut steps = vec![patch_rows::step(gpu, layout, self.grid, self.frame, pixels, patch_rows)?];
        let embed = Product {
            stage: Stage::PatchEmbed,
            matrix: &weights.patch_embed,
            activation: Activation::None,
            output: Output::Add,
            out_stride: layout.tokens,
            first_row: layout.prefix,
            rows: self.grid.len(),
        };
        steps.push(self.float_product(embed, Real::F32, patch_rows, tokens)?);
        for (layer, block) in weights.blocks.iter().enumerate() {
            self.block(layer, block, taps, &places.taps, &mut steps)?;
        }
        steps.push(self.norm(Stage::LayerNorm, self.result(&places.tokens))?);
        Ok(steps)
    }

    fn block(
        &self,
        layer: usize,
        block: &Block,
        taps: &Taps,
        places: &[Place],
        steps: &mut Vec<Step>,
    ) -> Result<(), GpuError> {
        let Parts { gpu, layout, numbers, activations, .. } = self.parts;
        let Activations { tokens, normed, qkv, attended, hidden, .. } = activations;
        let product = |stage, matrix, activation, output, out_stride| Product {
            stage,
            matrix,
            activation,
            output,
            out_stride,
            first_row: 0,
            rows: self.tokens,
        };
        let qkv_product = product(Stage::Qkv, &block.qkv, Activation::None, Output::Store, layout.qkv);
        let projection =
            product(Stage::Projection, &block.projection, Activation::None, Output::Add, layout.tokens);
        let activation = mlp_activation(layout.mlp);
        let mlp_in = product(Stage::MlpIn, &block.mlp_in, activation, Output::Store, layout.hidden);
        let mlp_out = product(Stage::MlpOut, &block.mlp_out, Activation::None, Output::Add, layout.tokens);

        self.normed_product(&block.norm1, qkv_product, normed, qkv, steps)?;
        for (tap, place) in taps.iter().zip(places) {
            self.attention_tap(layer, tap, place, steps)?;
        }
        steps.push(attention::step(gpu, layout, numbers.real, self.tokens, [self.frame, qkv, attended])?);
        self.plain_product(projection, attended, tokens, steps)?;
        self.normed_product(&block.norm2, mlp_in, normed, hidden, steps)?;
        self.plain_product(mlp_out, hidden, tokens, steps)?;
        for (tap, place) in taps.iter().zip(places) {
            self.layer_tap(layer, tap, place, steps)?;
        }
        Ok(())
    }

    /// `output = product(layer_norm(tokens))`.
    fn normed_product(
        &self,
        norm: &layer_norm::Norm,
        product: Product<'_>,
        normed: &Buffer,
        output: &Buffer,
        steps: &mut Vec<Step>,
    ) -> Result<(), GpuError> {
        let Parts { gpu, numbers, activations, .. } = self.parts;
        if product.matrix.form == Form::Int8 {
            let quantized = &activations.quantized;
            steps.push(layer_norm_quantized::step(
                gpu,
                norm,
                self.tokens,
                self.frame,
                &activations.tokens,
                quantized,
            )?);
            steps.push(self.int8_product(product, output)?);
        } else {
            let buffers = [self.frame, &activations.tokens, normed].map(Slice::from);
            steps.push(layer_norm::step(gpu, Stage::LayerNorm, norm, numbers.real, self.tokens, buffers)?);
            steps.push(self.float_product(product, numbers.real, normed, output)?);
        }
        Ok(())
    }

    /// `output = product(input)`.
    fn plain_product(
        &self,
        product: Product<'_>,
        input: &Buffer,
        output: &Buffer,
        steps: &mut Vec<Step>,
    ) -> Result<(), GpuError> {
        let Parts { gpu, numbers, activations, .. } = self.parts;
        let Matrix { form, k, .. } = *product.matrix;
        if form == Form::Int8 {
            let quantized = &activations.quantized;
            steps.push(quantize::step(gpu, numbers.real, self.tokens, k, self.frame, input, quantized)?);
            steps.push(self.int8_product(product, output)?);
        } else {
            steps.push(self.float_product(product, numbers.real, input, output)?);
        }
        Ok(())
    }

    fn float_product(
        &self,
        product: Product<'_>,
        real: Real,
        input: &Buffer,
        output: &Buffer,
    ) -> Result<Step, GpuError> {
        tuning::step(self.parts.gpu, product, Input::Floats(real, input.into()), output.into())
    }

    fn int8_product(&self, product: Product<'_>, output: &Buffer) -> Result<Step, GpuError> {
        let Parts { gpu, numbers, activations, .. } = self.parts;
        tuning::step(gpu, product, Input::Integers(numbers.real, &activations.quantized), output.into())
    }

    fn result(&self, place: &Place) -> Slice<'_> {
        Slice { buffer: self.results, offset: place.offset, bytes: Some(place.bytes()) }
    }

    /// The final LayerNorm of the tokens.
    fn norm(&self, stage: Stage, output: Slice<'_>) -> Result<Step, GpuError> {
        let Parts { gpu, weights, activations, .. } = self.parts;
        let buffers = [self.frame.into(), (&activations.tokens).into(), output];
        layer_norm::step(gpu, stage, &weights.norm, Real::F32, self.tokens, buffers)
    }

    fn attention_tap(
        &self,
        layer: usize,
        tap: Tap,
        place: &Place,
        steps: &mut Vec<Step>,
    ) -> Result<(), GpuError> {
        let Parts { gpu, layout, numbers, activations, weights, .. } = self.parts;
        let buffers = [self.frame.into(), (&activations.qkv).into(), self.result(place)];
        match tap {
            Tap::Facet { layer: wanted, facet } if wanted == layer => {
                let part = match facet {
                    Facet::Query => 0,
                    Facet::Key => 1,
                    Facet::Value => 2,
                };
                let of_facet = Columns {
                    width: layout.dim,
                    first: part * layout.heads * layout.head,
                    head: layout.head_dim,
                    head_pitch: layout.head,
                    stride: layout.qkv,
                };
                steps.push(columns::step(gpu, of_facet, numbers.real, self.tokens, buffers)?);
            }
            Tap::ClsAttention if layer + 1 == weights.blocks.len() => {
                steps.push(cls_attention::step(gpu, layout, numbers.real, buffers)?);
            }
            _ => {}
        }
        Ok(())
    }

    fn layer_tap(
        &self,
        layer: usize,
        tap: Tap,
        place: &Place,
        steps: &mut Vec<Step>,
    ) -> Result<(), GpuError> {
        let Parts { gpu, layout, activations, .. } = self.parts;
        match tap {
            Tap::Layer { layer: wanted, norm: true } if wanted == layer => {
                steps.push(self.norm(Stage::Taps, self.result(place))?);
            }
            Tap::Layer { layer: wanted, norm: false } if wanted == layer => {
                let all = Columns {
                    width: layout.dim,
                    first: 0,
                    head: layout.dim,
                    head_pitch: layout.dim,
                    stride: layout.tokens,
                };
                let buffers = [self.frame.into(), (&activations.tokens).into(), self.result(place)];
                steps.push(columns::step(gpu, all, Real::F32, self.tokens, buffers)?);
            }
            _ => {}
        }
        Ok(())
    }
}
