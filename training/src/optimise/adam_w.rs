//! AdamW with a learning rate per layer, and its state as tensors.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, Var};

use super::Gradients;
use crate::ops::{AdamStep, adam_step};
use crate::qat::LOG_SCALE;
use crate::recipe::Recipe;
use crate::vit::Variables;

/// Settings of AdamW.
#[derive(Clone, Copy, Debug)]
pub struct AdamWConfig {
    /// Decay of the mean of gradients, and of their squares.
    pub betas: [f64; 2],
    /// Decay of matrices.
    pub weight_decay: f64,
    /// Factor of the learning rate from a block to the one before it.
    pub layer_decay: f64,
    /// Factor of the learning rate for the patch embedding.
    pub patch_embed_rate: f64,
    /// Factor of the learning rate for the scales of rounded matrices.
    pub scale_rate: f64,
    /// Blocks of the model.
    pub depth: usize,
}

impl AdamWConfig {
    /// The settings of a recipe, for a model of `depth` blocks.
    pub fn new(recipe: &Recipe, depth: usize) -> Self {
        let Recipe { optimiser: recipe, quantize, .. } = recipe;
        Self {
            betas: recipe.betas,
            weight_decay: recipe.weight_decay,
            layer_decay: recipe.layer_decay,
            patch_embed_rate: recipe.patch_embed_rate,
            scale_rate: quantize.unwrap_or_default().scale_learning_rate / recipe.learning_rate,
            depth,
        }
    }

    /// Factor of the learning rate for a variable: 1 for what comes after the blocks, less the earlier it is (as in DINOv2's
    /// `get_vit_lr_decay_rate`).
    fn rate(&self, name: &str) -> f64 {
        if name.ends_with(LOG_SCALE) {
            return self.scale_rate;
        }
        let before = ["patch_embed", "pos_embed", "cls_token", "mask_token", "register_tokens"];
        let block = name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()?.parse().ok());
        let layer = match block {
            Some(block) => 1 + usize::min(block, self.depth),
            None if before.iter().any(|part| name.starts_with(part)) => 0,
            None => self.depth + 1,
        };
        let own = if name.starts_with("patch_embed") { self.patch_embed_rate } else { 1.0 };
        own * self.layer_decay.powf((self.depth + 1 - layer) as f64)
    }
}

/// Added to the root of the second moment (Kingma and Ba 2015, arXiv 1412.6980).
const EPSILON: f64 = 1e-8;

/// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101): weights decay apart from the gradient.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    /// Mean of gradients and of their squares, by variable.
    moments: BTreeMap<String, [Tensor; 2]>,
}

impl AdamW {
    /// Without moments.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, moments: BTreeMap::new() }
    }

    /// One step. `step` counts from 0.
    ///
    /// # Errors
    /// Those of candle.
    pub fn step(
        &mut self,
        variables: &Variables,
        gradients: &Gradients,
        learning_rate: f64,
        step: u64,
    ) -> Result<()> {
        for (name, variable) in variables.iter() {
            if let Some(grad) = gradients.get(name) {
                self.update(name, variable, grad, learning_rate, step)?;
            }
        }
        Ok(())
    }

    fn update(
        &mut self,
        name: &str,
        variable: &Var,
        grad: &Tensor,
        learning_rate: f64,
        step: u64,
    ) -> Result<()> {
        let [mean, square] = match self.moments.remove(name) {
            Some(moments) => moments,
            None => [grad.zeros_like()?, grad.zeros_like()?],
        };
        let learning_rate = learning_rate * self.config.rate(name);
        let count = i32::try_from(step.saturating_add(1)).unwrap_or(i32::MAX);
        let [beta1, beta2] = self.config.betas;
        let settings = AdamStep {
            betas: [beta1, beta2],
            step_size: learning_rate / (1.0 - beta1.powi(count)),
            square_factor: 1.0 / (1.0 - beta2.powi(count)),
            epsilon: EPSILON,
            keep: if decays(name) { 1.0 - learning_rate * self.config.weight_decay } else { 1.0 },
        };
        let (weights, moments) = adam_step(settings, variable.as_tensor(), grad, [&mean, &square])?;
        variable.set(&weights)?;
        self.moments.insert(name.to_owned(), moments);
        Ok(())
    }

    /// The moments for checkpoints: `0.NAME` the mean, `1.NAME` the mean of squares.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let both = self.moments.iter().flat_map(|(name, [mean, square])| {
            [(format!("0.{name}"), mean.clone()), (format!("1.{name}"), square.clone())]
        });
        both.collect()
    }

    /// Restores the moments of [`Self::state`].
    pub fn restore(&mut self, mut state: BTreeMap<String, Tensor>) {
        self.moments.clear();
        while let Some((key, first)) = state.pop_first() {
            let Some(name) = key.strip_prefix("0.") else { continue };
            if let Some(second) = state.remove(&format!("1.{name}")) {
                self.moments.insert(name.to_owned(), [first, second]);
            }
        }
    }
}

/// Matrices decay; norms, biases, LayerScale, tokens and position tables do not.
fn decays(name: &str) -> bool {
    let is_norm = name.split('.').any(|part| part.starts_with("norm"));
    name.ends_with(".weight") && !is_norm
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const WEIGHT: [f32; 4] = [0.469_337, -0.967_838_6, 1.994_006_2, 0.220_086_3];
    const BIAS: [f32; 2] = [0.115_857_1, -0.215_857_1];

    /// `torch.optim.AdamW` (2.15) after three steps: rate 0.01, betas 0.9 and 0.99, decay 0.1 on the matrix, 0 on the bias.
    #[test]
    fn it_steps_as_pytorch_does() {
        let tensor =
            |numbers: &[f32], shape: &[usize]| Tensor::from_slice(numbers, shape, &Device::Cpu).unwrap();
        let (weight, bias) = (tensor(&[0.5, -1.0, 2.0, 0.25], &[2, 2]), tensor(&[0.1, -0.2], &[2]));
        let both = [("fc.weight".to_owned(), weight), ("fc.bias".to_owned(), bias)];
        let variables = Variables::new(&both.into_iter().collect()).unwrap();
        let mut optimiser = AdamW::new(AdamWConfig {
            betas: [0.9, 0.99],
            weight_decay: 0.1,
            layer_decay: 1.0,
            patch_embed_rate: 1.0,
            scale_rate: 1.0,
            depth: 12,
        });
        for step in 0..3u64 {
            let weight = (tensor(&[0.3, -0.1, 0.0, 2.0], &[2, 2]) * (step + 1) as f64).unwrap();
            let bias = (tensor(&[-1.0, 0.5], &[2]) * (1.0 - step as f64)).unwrap();
            let gradients = [("fc.weight".to_owned(), weight), ("fc.bias".to_owned(), bias)].into();
            optimiser.step(&variables, &gradients, 0.01, step).unwrap();
            // Saving and restoring the state changes nothing.
            let state = optimiser.state();
            optimiser.restore(state);
        }
        let want = [("fc.weight", WEIGHT.as_slice()), ("fc.bias", &BIAS)];
        for (name, variable) in variables.iter() {
            let got: Vec<f32> = variable.flatten_all().unwrap().to_vec1().unwrap();
            let (_, want) = want.iter().find(|(known, _)| *known == name).unwrap();
            assert!(got.iter().zip(*want).all(|(got, want)| (got - want).abs() < 1e-6), "{name}: {got:?}");
        }
    }

    /// The factors that DINOv2's `get_vit_lr_decay_rate` gives for 12 blocks, decay 0.9 and `patch_embed_lr_mult` 0.2.
    #[test]
    fn earlier_layers_move_less() {
        let config = AdamWConfig {
            betas: [0.9, 0.99],
            weight_decay: 0.0,
            layer_decay: 0.9,
            patch_embed_rate: 0.2,
            scale_rate: 10.0,
            depth: 12,
        };
        for (name, rate) in [
            ("norm.weight", 1.0),
            ("head.patch.0.weight", 1.0),
            ("blocks.11.attn.qkv.weight", 0.9),
            ("blocks.11.attn.qkv.weight.log_scale", 10.0),
            ("blocks.0.ls1.gamma", 0.282_429_536_481),
            ("pos_embed", 0.254_186_582_832_9),
            ("cls_token", 0.254_186_582_832_9),
            ("patch_embed.proj.weight", 0.050_837_316_566_58),
        ] {
            assert!((config.rate(name) - rate).abs() < 1e-12, "{name}: {}", config.rate(name));
        }
    }

    #[test]
    fn only_matrices_decay() {
        for name in [
            "patch_embed.proj.weight",
            "blocks.3.attn.qkv.weight",
            "blocks.0.mlp.fc1.weight",
            "head.patch.0.weight",
        ] {
            assert!(decays(name), "{name}");
        }
        for name in [
            "norm.weight",
            "blocks.3.norm1.weight",
            "blocks.3.attn.qkv.bias",
            "blocks.0.ls1.gamma",
            "cls_token",
            "pos_embed",
            "head.patch.norm.weight",
        ] {
            assert!(!decays(name), "{name}");
        }
    }
}
