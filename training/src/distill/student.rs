//! The student: its shape by the recipe, its first weights, its variables.

use candle_core::{DType, Device, Tensor};
use dinov2_core::{MlpKind, PatchGrid, PositionConvention, VitSpec};
use dinov2_weights::layout::slots;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::DistillError;
use crate::qat::Rounding;
use crate::recipe::{Recipe, Start, StudentRecipe};
use crate::vit::{Parameters, Variables, Vit};

/// LayerScale of a student from scratch (Touvron et al. 2021, arXiv 2103.17239, for up to 18 blocks).
const LAYER_SCALE: f32 = 0.1;
/// Standard deviation of fresh weights and tokens, drawn within two of them (DINOv2).
const DEVIATION: f32 = 0.02;
/// Grid of a fresh position table: 224 pixels at patch size 14.
const TABLE_SIDE: usize = 16;

/// The trainable model.
#[derive(Debug)]
pub struct Student {
    /// Shape and initial parameters.
    pub vit: Vit,
    /// Variables of backbone and heads, and scales of rounded matrices.
    pub variables: Variables,
    /// Roundings of quantization-aware training.
    pub rounding: Option<Rounding>,
}

/// The student's shape. `start`: shape of the model that it starts from.
///
/// # Errors
/// Sizes that do not fit together.
pub fn student_spec(recipe: &StudentRecipe, start: Option<&VitSpec>) -> Result<VitSpec, DistillError> {
    let scratch = VitSpec {
        dim: 384,
        depth: 12,
        heads: 6,
        patch_size: 14,
        registers: 0,
        mlp: MlpKind::Gelu,
        mlp_hidden: 4 * recipe.dim.unwrap_or(384),
        layer_scale: true,
        norm_eps: 1e-6,
        position_table: PatchGrid { rows: TABLE_SIDE, cols: TABLE_SIDE },
        position_convention: PositionConvention::ExactSizeAntialias,
    };
    let base = match (recipe.start, start) {
        (Start::Scratch, _) => scratch,
        (Start::Model, Some(start)) => start.clone(),
        (Start::Model, None) => {
            return Err(DistillError::Student("start = \"model\": expected a model, got none".into()));
        }
    };
    let spec = VitSpec {
        dim: recipe.dim.unwrap_or(base.dim),
        depth: recipe.depth.unwrap_or(base.depth),
        heads: recipe.heads.unwrap_or(base.heads),
        mlp_hidden: recipe.mlp_hidden.unwrap_or(base.mlp_hidden),
        registers: recipe.registers.unwrap_or(base.registers),
        patch_size: recipe.patch_size.unwrap_or(base.patch_size),
        ..base
    };
    spec.validate().map_err(|error| DistillError::Student(error.to_string()))?;
    Ok(spec)
}

impl Student {
    /// A student of this shape. `first`: initial tensors, missing ones are drawn from the recipe's seed; `heads`: the
    /// tensors of the loss heads.
    ///
    /// # Errors
    /// Those of candle.
    pub fn new(
        spec: VitSpec,
        first: &Parameters,
        heads: &Parameters,
        recipe: &Recipe,
        device: &Device,
    ) -> Result<Self, DistillError> {
        let mut random = crate::random::stream(recipe.seed, "weights", 0);
        let mut tensors = Vec::new();
        for slot in slots(&spec) {
            let tensor = match first.get(&slot.name) {
                Ok(tensor) => tensor.clone(),
                Err(_) => fresh(&slot.name, &slot.shape, &mut random)?,
            };
            tensors.push((slot.name, tensor.to_dtype(DType::F32)?.to_device(device)?));
        }
        let vit = Vit::new(spec, tensors.iter().cloned().collect());
        for (name, tensor) in heads.iter() {
            tensors.push((name.to_owned(), tensor.to_device(device)?));
        }
        let rounding = recipe.quantize.map(|quantize| Rounding::new(vit.spec(), quantize.weight_limit));
        if let Some(rounding) = &rounding {
            let scales = rounding.first_scales(vit.parameters())?;
            tensors.extend(scales.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())));
        }
        let variables = Variables::new(&tensors.into_iter().collect())?;
        Ok(Self { vit, variables, rounding })
    }

    /// The network with these tensors, rounded in quantization-aware training.
    ///
    /// # Errors
    /// Those of candle.
    pub fn network(&self, parameters: &Parameters) -> candle_core::Result<Vit> {
        match &self.rounding {
            None => Ok(self.vit.with_parameters(parameters.clone())),
            Some(rounding) => Ok(self.vit.with_parameters(rounding.apply(parameters)?).with_rounded_inputs()),
        }
    }
}

fn fresh(name: &str, shape: &[usize], random: &mut ChaCha8Rng) -> candle_core::Result<Tensor> {
    let count = shape.iter().product();
    let is_norm = name.split('.').any(|part| part.starts_with("norm"));
    let constant = match name {
        name if name.ends_with(".gamma") => Some(LAYER_SCALE),
        name if is_norm && name.ends_with(".weight") => Some(1.0),
        name if name.ends_with(".bias") || name == "mask_token" => Some(0.0),
        _ => None,
    };
    let numbers = match constant {
        Some(constant) => vec![constant; count],
        None => (0..count).map(|_| DEVIATION * truncated_normal(random)).collect(),
    };
    Tensor::from_vec(numbers, shape, &Device::Cpu)
}

/// A normal number within ±2, by rejection (Marsaglia's polar method).
fn truncated_normal(random: &mut ChaCha8Rng) -> f32 {
    loop {
        let (x, y): (f32, f32) = (random.random_range(-1.0..1.0), random.random_range(-1.0..1.0));
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            let normal = x * (-2.0 * square.ln() / square).sqrt();
            if normal.abs() <= 2.0 {
                return normal;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Whatever a student is cut out of, here a ViT-S with registers, it has the shape that its recipe is named after.
    #[test]
    fn recipes_are_named_after_what_they_make() {
        let read = |name: &str| {
            let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes"));
            Recipe::read(&folder.join(name)).unwrap()
        };
        let scratch = toml::from_str("start = \"scratch\"\nregisters = 4").unwrap();
        let source = student_spec(&scratch, None).unwrap();
        for (name, dim, depth, heads, mlp_hidden, registers, patch_size) in [
            ("vits14-from-vitg14.toml", 384, 12, 6, 1_536, 4, 14),
            ("vits14-6-blocks.toml", 384, 6, 6, 1_536, 4, 14),
            ("vitti14.toml", 192, 12, 3, 768, 4, 14),
            ("micro.toml", 96, 4, 3, 192, 0, 14),
            ("vits21.toml", 384, 12, 6, 1_536, 4, 21),
        ] {
            let spec = student_spec(&read(name).student, Some(&source)).unwrap();
            let shape = (spec.dim, spec.depth, spec.heads, spec.mlp_hidden, spec.registers, spec.patch_size);
            assert_eq!(shape, (dim, depth, heads, mlp_hidden, registers, patch_size), "{name}");
        }
    }
}
