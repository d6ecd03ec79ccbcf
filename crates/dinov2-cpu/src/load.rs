//! From a model file to weights packed for this CPU. Blocks are packed in parallel: dequantizing and reordering 22 M
//! weights is most of the time between start and first feature.

use std::sync::Mutex;

use dinov2_core::{MlpKind, VitSpec};
use dinov2_kernels::gemm_f32::PackedLinear;
use dinov2_kernels::layer_norm::LayerNorm;
use dinov2_kernels::{Isa, Pool};
use dinov2_weights::{Model, ModelError, PixelFilters};

use crate::CpuPrecision;
use crate::linear::{Linear, Unpacked};

/// Why a model file cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A tensor is missing in the model file or cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// γ and β of a LayerNorm.
pub(crate) struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    eps: f32,
}

impl Norm {
    fn load(model: &Model, name: &str) -> Result<Self, LoadError> {
        let gamma = model.f32(&format!("{name}.weight"))?;
        let beta = model.f32(&format!("{name}.bias"))?;
        Ok(Self { gamma, beta, eps: model.spec().norm_eps })
    }

    pub(crate) fn params(&self) -> LayerNorm<'_> {
        LayerNorm { gamma: &self.gamma, beta: &self.beta, eps: self.eps }
    }
}

/// One transformer block.
pub(crate) struct Block {
    pub(crate) norm1: Norm,
    pub(crate) qkv: Linear,
    pub(crate) projection: Linear,
    pub(crate) norm2: Norm,
    /// `fc1`, or the gated `w12`.
    pub(crate) mlp_in: Linear,
    /// `fc2` or `w3`.
    pub(crate) mlp_out: Linear,
}

/// Every weight, packed.
pub(crate) struct Weights {
    pub(crate) patch_embed: PackedLinear,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: Norm,
    /// CLS, `[dim]`, without its position.
    pub(crate) cls: Vec<f32>,
    /// `[registers, dim]`.
    pub(crate) registers: Vec<f32>,
}

impl Weights {
    pub(crate) fn load(
        model: &Model,
        isa: Isa,
        precision: CpuPrecision,
        pool: &Pool,
    ) -> Result<Self, LoadError> {
        let spec = model.spec();
        let slots: Vec<Mutex<Option<Result<Block, LoadError>>>> =
            (0..spec.depth).map(|_| Mutex::new(None)).collect();
        pool.run(spec.depth, &|index| {
            let block = load_block(model, isa, precision, index);
            *slots[index].lock().expect("no loader panics while it holds the slot") = Some(block);
        });
        let loaded = slots.into_iter().map(|slot| {
            let block = slot.into_inner().expect("no loader panics while it holds the slot");
            block.expect("every block was loaded")
        });
        Ok(Self {
            patch_embed: load_patch_embed(model, isa)?,
            blocks: loaded.collect::<Result<_, _>>()?,
            norm: Norm::load(model, "norm")?,
            cls: model.f32("cls_token")?,
            registers: if spec.registers > 0 { model.f32("register_tokens")? } else { Vec::new() },
        })
    }

    /// Writes the tokens before the patches, `prefix: [1 + registers, dim]`. `position: [dim]`, that of CLS.
    pub(crate) fn write_prefix(&self, position: &[f32], prefix: &mut [f32]) {
        let (cls, registers) = prefix.split_at_mut(self.cls.len());
        for ((slot, token), position) in cls.iter_mut().zip(&self.cls).zip(position) {
            *slot = token + position;
        }
        registers.copy_from_slice(&self.registers);
    }

    pub(crate) fn bytes(&self) -> usize {
        let block = |block: &Block| {
            [&block.qkv, &block.projection, &block.mlp_in, &block.mlp_out]
                .map(Linear::bytes)
                .iter()
                .sum::<usize>()
        };
        self.patch_embed.bytes() + self.blocks.iter().map(block).sum::<usize>()
    }
}

fn load_patch_embed(model: &Model, isa: Isa) -> Result<PackedLinear, LoadError> {
    let PixelFilters { weight, bias } = model.pixel_filters()?;
    let patch_size = model.spec().patch_size;
    Ok(PackedLinear::pack(isa, &weight, &bias, 3 * patch_size * patch_size))
}

fn load_block(model: &Model, isa: Isa, precision: CpuPrecision, index: usize) -> Result<Block, LoadError> {
    let spec: &VitSpec = model.spec();
    let name = |part: &str| format!("blocks.{index}.{part}");
    let matrix = |part: &str| Unpacked::read(model, &name(part), precision);
    // LayerScale multiplies the output channels of the projection before it.
    let scaled = |part: &str, scale: &str| -> Result<Unpacked, LoadError> {
        let mut matrix = matrix(part)?;
        if spec.layer_scale {
            matrix.scale_outputs(&model.f32(&name(scale))?);
        }
        Ok(matrix)
    };
    let (mlp_in, mlp_out) = match spec.mlp {
        MlpKind::Gelu => (matrix("mlp.fc1")?.pack(isa), scaled("mlp.fc2", "ls2.gamma")?),
        MlpKind::SwiGlu => (matrix("mlp.w12")?.pack_gated(isa), scaled("mlp.w3", "ls2.gamma")?),
    };
    Ok(Block {
        norm1: Norm::load(model, &name("norm1"))?,
        qkv: matrix("attn.qkv")?.pack(isa),
        projection: scaled("attn.proj", "ls1.gamma")?.pack(isa),
        norm2: Norm::load(model, &name("norm2"))?,
        mlp_in,
        mlp_out: mlp_out.pack(isa),
    })
}

#[cfg(test)]
mod tests {
    use dinov2_core::ImageView;
    use dinov2_kernels::{Epilogue, patch_embed};
    use dinov2_weights::{fold_normalisation, interleave_channels};

    use super::*;

    const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    const STD: [f32; 3] = [0.229, 0.224, 0.225];

    /// The definition: normalise, then convolve with stride = kernel; double precision. Returns `[patches, dim]`.
    fn convolution(image: ImageView<'_>, patch_size: usize, weight: &[f32], bias: &[f32]) -> Vec<f64> {
        let grid = image.grid(patch_size).unwrap();
        let area = patch_size * patch_size;
        let mut out = Vec::new();
        for (row, col) in (0..grid.rows).flat_map(|row| (0..grid.cols).map(move |col| (row, col))) {
            for (filter, &bias) in weight.chunks_exact(3 * area).zip(bias) {
                let mut sum = f64::from(bias);
                for (at, &value) in filter.iter().enumerate() {
                    let (channel, y, x) = (at / area, at / patch_size % patch_size, at % patch_size);
                    let pixel = (row * patch_size + y) * image.width_px() + col * patch_size + x;
                    let level = f64::from(image.pixels()[pixel * 3 + channel]) / 255.0;
                    sum += (level - f64::from(MEAN[channel])) / f64::from(STD[channel]) * f64::from(value);
                }
                out.push(sum);
            }
        }
        out
    }

    /// As the engine does it.
    fn embed(isa: Isa, image: ImageView<'_>, patch_size: usize, weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let grid = image.grid(patch_size).unwrap();
        let (mut weight, mut bias) = (weight.to_vec(), bias.to_vec());
        fold_normalisation(&mut weight, &mut bias, MEAN, STD);
        let patch_len = patch_size * patch_size * 3;
        let layer = PackedLinear::pack(isa, &interleave_channels(&weight, patch_size), &bias, patch_len);
        let mut rows = vec![0.0; grid.len() * patch_len];
        patch_embed::gather_patches(&Pool::single(), image, grid, patch_size, &mut rows);
        let mut out = vec![0.0; grid.len() * bias.len()];
        layer.apply(isa, &Pool::single(), Epilogue::Store, &rows, &mut out);
        out
    }

    #[test]
    fn patch_embedding_equals_the_convolution_of_the_normalised_image() {
        let mut state = 1_u32;
        let mut numbers = |len: usize| -> Vec<f32> {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            (0..len).map(|_| next()).collect()
        };
        for isa in Isa::available() {
            for (patch_size, rows, cols, dim) in [(1, 3, 5, 4), (2, 1, 1, 3), (14, 3, 2, 20), (16, 2, 4, 8)] {
                let (width_px, height_px) = (cols * patch_size, rows * patch_size);
                let noise = numbers(width_px * height_px * 3);
                let pixels: Vec<u8> = noise.iter().map(|x| (x * 128.0 + 128.0) as u8).collect();
                let image = ImageView::new(&pixels, width_px, height_px).unwrap();
                let (weight, bias) = (numbers(dim * 3 * patch_size * patch_size), numbers(dim));
                let want = convolution(image, patch_size, &weight, &bias);
                let got = embed(isa, image, patch_size, &weight, &bias);
                let error: f64 =
                    want.iter().zip(&got).map(|(want, got)| (want - f64::from(*got)).powi(2)).sum();
                let error = (error / want.iter().map(|want| want * want).sum::<f64>()).sqrt();
                assert!(error < 1e-6, "{} patch {patch_size}: {error}", isa.name());
            }
        }
    }
}
