//! Self-attention on CPUs, image by image and head by head.
//!
//! Data shape: `qkv: [batch * tokens, 3 * dim]`, read in place with strides; scores exist for one head at a time.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::math::{Matrix, exp, product};
use super::rows::{tensor, with_storage};

/// Layout of the rows of `qkv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Number of images.
    pub batch: usize,
    /// Tokens of an image.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    pub(super) fn dim(self) -> usize {
        self.heads * self.head_dim
    }

    /// Pairs of tokens, over images and heads.
    pub fn scores(self) -> usize {
        self.batch * self.heads * self.tokens * self.tokens
    }

    /// Factor of the scores before the softmax.
    pub(super) fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// `attention`. Softmax weights are recomputed in the backward pass: stored, they would be most of a step's memory.
pub(super) struct Attention {
    pub(super) shape: AttentionShape,
}

/// A position in a storage.
#[derive(Clone, Copy)]
struct Place<'a> {
    storage: &'a CpuStorage,
    start: usize,
}

/// Queries, keys and values of one head of one image.
struct Head<'a> {
    query: Matrix<'a>,
    key: Matrix<'a>,
    value: Matrix<'a>,
}

impl Attention {
    /// `qkv: [tokens, 3 * dim]` of one image.
    fn head<'a>(&self, qkv: Place<'a>, head: usize) -> Head<'a> {
        let AttentionShape { tokens, head_dim, .. } = self.shape;
        let dim = self.shape.dim();
        let part = |index: usize| {
            let start = qkv.start + index * dim + head * head_dim;
            Matrix::new(qkv.storage, start, tokens, head_dim, 3 * dim)
        };
        Head { query: part(0), key: part(1), value: part(2) }
    }

    /// A matrix of a weight per pair of tokens.
    fn square<'a>(&self, storage: &'a CpuStorage) -> Matrix<'a> {
        Matrix::new(storage, 0, self.shape.tokens, self.shape.tokens, self.shape.tokens)
    }

    /// Softmax weights, `[tokens, tokens]`.
    fn weights(&self, head: &Head<'_>) -> Result<Vec<f32>> {
        let scale = self.shape.scale();
        let mut weights = product(head.query, head.key.transposed())?;
        for row in weights.chunks_exact_mut(self.shape.tokens) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|score| *score = exp(scale * (*score - largest)));
            let inverse = 1.0 / row.iter().sum::<f32>();
            row.iter_mut().for_each(|weight| *weight *= inverse);
        }
        Ok(weights)
    }

    /// One image. `out: [tokens, dim]`.
    fn forward(&self, qkv: Place<'_>, out: &mut [f32]) -> Result<()> {
        let AttentionShape { heads, head_dim, .. } = self.shape;
        for index in 0..heads {
            let head = self.head(qkv, index);
            let weights = CpuStorage::F32(self.weights(&head)?);
            let mixed = product(self.square(&weights), head.value)?;
            scatter(&mixed, head_dim, &mut out[index * head_dim..], self.shape.dim());
        }
        Ok(())
    }

    /// One image. `grad: [tokens, dim]`, `out: [tokens, 3 * dim]`. With `P` the weights and `dP = dO · Vᵀ`:
    /// `dV = Pᵀ dO`, `dS = scale · P ∘ (dP - rowsum(P ∘ dP))`, `dQ = dS K`, `dK = dSᵀ Q`.
    fn backward(&self, qkv: Place<'_>, grad: Place<'_>, out: &mut [f32]) -> Result<()> {
        let AttentionShape { tokens, heads, head_dim, .. } = self.shape;
        let (dim, scale) = (self.shape.dim(), self.shape.scale());
        for index in 0..heads {
            let head = self.head(qkv, index);
            let grad = Matrix::new(grad.storage, grad.start + index * head_dim, tokens, head_dim, dim);
            let weights = self.weights(&head)?;
            let mut scores = product(grad, head.value.transposed())?;
            for (weights, row) in weights.chunks_exact(tokens).zip(scores.chunks_exact_mut(tokens)) {
                let along: f32 = weights.iter().zip(&*row).map(|(weight, grad)| weight * grad).sum();
                row.iter_mut()
                    .zip(weights)
                    .for_each(|(grad, weight)| *grad = scale * weight * (*grad - along));
            }
            let (weights, scores) = (CpuStorage::F32(weights), CpuStorage::F32(scores));
            let parts = [
                product(self.square(&scores), head.key)?,
                product(self.square(&scores).transposed(), head.query)?,
                product(self.square(&weights).transposed(), grad)?,
            ];
            for (place, part) in parts.iter().enumerate() {
                scatter(part, head_dim, &mut out[place * dim + index * head_dim..], 3 * dim);
            }
        }
        Ok(())
    }
}

/// Copies rows of `width` to the starts of rows of `stride`.
fn scatter(rows: &[f32], width: usize, out: &mut [f32], stride: usize) {
    for (out, row) in out.chunks_mut(stride).zip(rows.chunks_exact(width)) {
        out[..width].copy_from_slice(row);
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let AttentionShape { batch, tokens, .. } = self.shape;
        let dim = self.shape.dim();
        let (rows, cols) = layout.shape().dims2()?;
        if rows != batch * tokens || cols != 3 * dim {
            bail!("attention: expected qkv [{}, {}], got [{rows}, {cols}]", batch * tokens, 3 * dim);
        }
        let start = numbers_start(layout)?;
        let mut out = vec![0.0; rows * dim];
        out.par_chunks_mut(tokens * dim).enumerate().try_for_each(|(image, out)| {
            self.forward(Place { storage: qkv, start: start + image * tokens * 3 * dim }, out)
        })?;
        Ok((CpuStorage::F32(out), (rows, dim).into()))
    }

    fn bwd(&self, qkv: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (tokens, dim) = (self.shape.tokens, self.shape.dim());
        let mut out = vec![0.0; qkv.elem_count()];
        with_storage(qkv, |storage, start| {
            with_storage(grad, |grad, grad_start| {
                out.par_chunks_mut(tokens * 3 * dim).enumerate().try_for_each(|(image, out)| {
                    let qkv = Place { storage, start: start + image * tokens * 3 * dim };
                    let grad = Place { storage: grad, start: grad_start + image * tokens * dim };
                    self.backward(qkv, grad, out)
                })
            })
        })?;
        tensor(out, qkv.shape()).map(Some)
    }
}

fn numbers_start(layout: &Layout) -> Result<usize> {
    match layout.contiguous_offsets() {
        Some((start, _)) => Ok(start),
        None => bail!("attention: expected contiguous qkv, got strides {:?}", layout.stride()),
    }
}
