//! Heads between a student's tokens and the targets. They are trained with the student and are not part of the result.

use candle_core::{DType, Device, Result, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::ops;
use crate::recipe::HeadKind;
use crate::vit::Parameters;

/// Epsilon of the LayerNorm in a head.
const NORM_EPS: f32 = 1e-6;

/// Maps a student's tokens to standardised targets. Its tensors are trained with the student and discarded afterwards.
#[derive(Clone, Debug)]
pub struct Head {
    kind: HeadKind,
    /// Prefix of its tensors' names.
    name: String,
}

impl Head {
    /// A head whose tensors are named `name.…`.
    pub fn new(kind: HeadKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// Kind.
    pub fn kind(&self) -> HeadKind {
        self.kind
    }

    /// Fresh tensors: weights uniform in ±1/√inputs, as PyTorch's linear layers start.
    ///
    /// # Errors
    /// Those of candle.
    pub fn parameters(&self, from: usize, to: usize, random: &mut ChaCha8Rng) -> Result<Parameters> {
        let mut tensors = Vec::new();
        let mut linear = |part: &str, from: usize, to: usize| -> Result<()> {
            let bound = 1.0 / (from as f32).sqrt();
            let weight: Vec<f32> = (0..from * to).map(|_| random.random_range(-bound..=bound)).collect();
            let name = |what: &str| format!("{}.{part}.{what}", self.name);
            tensors.push((name("weight"), Tensor::from_vec(weight, (to, from), &Device::Cpu)?));
            tensors.push((name("bias"), Tensor::zeros(to, DType::F32, &Device::Cpu)?));
            Ok(())
        };
        match self.kind {
            HeadKind::Identity => {}
            HeadKind::Linear => linear("out", from, to)?,
            HeadKind::Mlp => {
                linear("in", from, to)?;
                linear("out", to, to)?;
                let name = |what: &str| format!("{}.norm.{what}", self.name);
                tensors.push((name("weight"), Tensor::ones(to, DType::F32, &Device::Cpu)?));
                tensors.push((name("bias"), Tensor::zeros(to, DType::F32, &Device::Cpu)?));
            }
        }
        Ok(tensors.into_iter().collect())
    }

    /// `tokens: [.., from]` to `[.., to]`; unchanged by [`HeadKind::Identity`].
    ///
    /// # Errors
    /// Another width than the tensors'.
    pub fn forward(&self, parameters: &Parameters, tokens: &Tensor) -> Result<Tensor> {
        let get = |part: &str| parameters.get(&format!("{}.{part}", self.name));
        let linear = |part: &str, rows: &Tensor| {
            ops::linear(rows, get(&format!("{part}.weight"))?, get(&format!("{part}.bias"))?)
        };
        let mut shape = tokens.dims().to_vec();
        let width = shape.pop().unwrap_or(0);
        let rows = tokens.reshape(((), width))?;
        let rows = match self.kind {
            HeadKind::Identity => return Ok(tokens.clone()),
            HeadKind::Linear => linear("out", &rows)?,
            HeadKind::Mlp => {
                let inner = linear("in", &rows)?;
                let inner = ops::layer_norm(&inner, get("norm.weight")?, get("norm.bias")?, NORM_EPS)?;
                linear("out", &ops::gelu(&inner)?)?
            }
        };
        shape.push(rows.dim(1)?);
        rows.reshape(shape)
    }
}
