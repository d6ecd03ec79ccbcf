//! Recipes: everything that determines what a run learns, as TOML. Paths of images and results are on the command line.

mod check;
mod tap_pair;

use serde::{Deserialize, Serialize};

use crate::views::{Sides, ViewConfig};

pub use check::RecipeError;
pub use tap_pair::TapPair;
pub(crate) use tap_pair::upgrade_taps;

/// A distillation run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Shape and start of the student.
    pub student: StudentRecipe,
    /// The loss.
    #[serde(default)]
    pub loss: LossRecipe,
    /// The optimiser.
    #[serde(default)]
    pub optimiser: OptimiserRecipe,
    /// Learn with the roundings of the runtime's int8 engine (`training qat`).
    #[serde(alias = "quantise", default, skip_serializing_if = "Option::is_none")]
    pub quantize: Option<QuantizeRecipe>,
    /// The stages of the run, in order.
    pub stages: Vec<Stage>,
    /// Seed of everything that is random.
    #[serde(default)]
    pub seed: u64,
    /// Number type of the student's arithmetic; its weights are f32.
    #[serde(default)]
    pub precision: ComputePrecision,
    /// Recompute blocks in the backward pass instead of keeping their activations.
    #[serde(default)]
    pub recompute: bool,
    /// Held-out images that the student is measured on.
    #[serde(default = "defaults::validation_images")]
    pub validation_images: usize,
}

/// Number type of a forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ComputePrecision {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16, for GPUs.
    Bf16,
}

/// The student's shape and where its weights start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentRecipe {
    /// Where its weights start.
    pub start: Start,
    /// Blocks [default: as the model it starts from, like all sizes below].
    pub depth: Option<usize>,
    /// Width of a token.
    pub dim: Option<usize>,
    /// Attention heads.
    pub heads: Option<usize>,
    /// Width of the MLP.
    pub mlp_hidden: Option<usize>,
    /// Register tokens.
    pub registers: Option<usize>,
    /// Patch size in pixels. The patch embedding of a model is resized to it.
    pub patch_size: Option<usize>,
}

/// Where weights start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Start {
    /// From a model: its most important blocks, heads and channels. The teacher, unless `--start` names another.
    Model,
    /// At random.
    Scratch,
}

/// Terms of the loss and their weights; a weight of 0 leaves a term out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossRecipe {
    /// Standardisation of the targets.
    pub standardise: Standardise,
    /// Views that the statistics are measured on.
    pub statistics_images: usize,
    /// The map from the student's tokens to the targets.
    pub head: HeadKind,
    /// `1 - cos` of CLS.
    pub cls: f64,
    /// `1 - cos` of patches.
    pub patch_cosine: f64,
    /// Smooth L1 of patches.
    pub patch_smooth_l1: f64,
    /// Mean squared difference of the cosines between the patches of an image.
    pub gram: f64,
    /// The patch terms on patches that are hidden from the student.
    pub masked: f64,
    /// Share of steps with this term, which costs a forward pass.
    pub masked_steps: f64,
    /// Share of the patches that are hidden.
    pub mask_ratio: f64,
    /// Pairs of blocks whose outputs are compared.
    pub taps: Vec<TapPair>,
    /// Weight of each pair.
    pub tap: f64,
}

/// Standardisation of the targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Standardise {
    /// Not at all.
    None,
    /// Every coordinate by its mean and standard deviation.
    #[default]
    MeanStd,
    /// PHI-S: a rotation after which all coordinates have the same variance, then one factor (Ranzinger et al. 2024, arXiv
    /// 2410.01680).
    PhiS,
}

/// The map from the student's tokens to the targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HeadKind {
    /// None: the student's tokens approximate the teacher's. Needs the same width.
    Identity,
    /// A linear layer.
    #[default]
    Linear,
    /// Linear, LayerNorm, GELU, linear (EUPE).
    Mlp,
}

/// AdamW, its schedule, clipping and averaging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimiserRecipe {
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end, as a share of the largest.
    pub final_share: f64,
    /// Steps of the linear rise from 0.
    pub warm_up_steps: u64,
    /// Decay of matrices; norms, biases, LayerScale and tokens have none.
    pub weight_decay: f64,
    /// Factor of the learning rate from a block to the one before it; 1 for none. DINOv2 trains with 0.9.
    pub layer_decay: f64,
    /// Factor of the learning rate for the patch embedding, whose small weights add up over a whole patch. DINOv2's is 0.2.
    pub patch_embed_rate: f64,
    /// Decay of the mean of gradients, and of their squares.
    pub betas: [f64; 2],
    /// Largest norm of the gradient.
    pub clip: f64,
    /// Decay of the averaged weights, which are the result.
    pub average: f64,
}

/// Roundings of quantization-aware training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantizeRecipe {
    /// Largest magnitude of a weight in units of its scale: 127, or 64 (the default) for CPUs that sum products in 16 bits.
    pub weight_limit: u8,
    /// Largest learning rate of the logarithms of the weights' scales, with the schedule of the others; 0 leaves scales as they are. A
    /// rate suited to weights would hardly move them.
    pub scale_learning_rate: f64,
}

/// A part of a run with its own batch size and views.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Steps.
    pub steps: u64,
    /// Images of a step, over all processes.
    pub batch: usize,
    /// Parts of a batch that are computed one after the other, to save memory.
    #[serde(default = "defaults::accumulate")]
    pub accumulate: usize,
    /// What the networks see.
    pub views: ViewConfig,
}

mod defaults {
    pub(super) fn validation_images() -> usize {
        64
    }
    pub(super) fn accumulate() -> usize {
        1
    }
}

impl Default for LossRecipe {
    fn default() -> Self {
        Self {
            standardise: Standardise::default(),
            statistics_images: 512,
            head: HeadKind::default(),
            cls: 1.0,
            patch_cosine: 0.9,
            patch_smooth_l1: 0.1,
            gram: 1.0,
            masked: 0.5,
            masked_steps: 0.5,
            mask_ratio: 0.5,
            taps: Vec::new(),
            tap: 0.5,
        }
    }
}

impl Default for QuantizeRecipe {
    fn default() -> Self {
        Self { weight_limit: 64, scale_learning_rate: 3e-3 }
    }
}

impl Default for OptimiserRecipe {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            final_share: 0.01,
            warm_up_steps: 500,
            weight_decay: 0.04,
            layer_decay: 1.0,
            patch_embed_rate: 0.2,
            betas: [0.9, 0.999],
            clip: 1.0,
            average: 0.9998,
        }
    }
}

impl Recipe {
    /// Steps of all stages.
    pub fn steps(&self) -> u64 {
        self.stages.iter().map(|stage| stage.steps).sum()
    }

    /// The stage of a step.
    pub fn stage(&self, step: u64) -> Option<&Stage> {
        let mut first = 0;
        self.stages.iter().find(|stage| {
            first += stage.steps;
            step < first
        })
    }

    /// Sides at which held-out images are measured: the largest of every stage, in the order of the stages.
    pub fn held_out_sides(&self) -> Vec<Sides> {
        let mut all: Vec<Sides> = Vec::new();
        for views in self.stages.iter().map(|stage| &stage.views) {
            let largest = |sides: &[usize]| sides.iter().copied().max().unwrap_or_default();
            let student_px = largest(&views.sizes_px);
            let teacher_px =
                views.teacher_sizes_px.as_deref().map(largest).filter(|side| *side != student_px);
            if all.iter().all(|sides| sides.student_px != student_px) {
                all.push(Sides { student_px, teacher_px });
            }
        }
        all
    }

    /// The smallest and the largest side of the student's views.
    pub fn extreme_sides(&self) -> Vec<Sides> {
        let sides = || self.stages.iter().flat_map(|stage| &stage.views.sizes_px).copied();
        let mut extremes: Vec<usize> = sides().min().into_iter().chain(sides().max()).collect();
        extremes.dedup();
        extremes.into_iter().map(|student_px| Sides { student_px, teacher_px: None }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const LEAST: &str = r#"
        student = { start = "model", depth = 6 }
        [[stages]]
        steps = 10
        batch = 8
        views = { sizes_px = [224], scale = [0.4, 1.0], ratio = [0.75, 1.333], flip = 0.5, grey = 0.0, mixup = 0.0 }
    "#;

    fn read(text: &str) -> Result<Recipe, RecipeError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        Recipe::read(&path)
    }

    #[test]
    fn the_unsaid_has_defaults() {
        let recipe = read(LEAST).unwrap();
        assert_eq!(recipe.loss, LossRecipe::default());
        assert_eq!((recipe.steps(), recipe.student.depth), (10, Some(6)));
        assert_eq!(recipe.stage(9), Some(&recipe.stages[0]));
        assert_eq!(recipe.stage(10), None);
        let again: Recipe = toml::from_str(&toml::to_string(&recipe).unwrap()).unwrap();
        assert_eq!(again, recipe);
    }

    #[test]
    fn every_recipe_of_ours_is_one() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes"));
        let recipes: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(recipes.len() >= 4, "{recipes:?}");
        for path in recipes {
            let recipe = Recipe::read(&path).unwrap_or_else(|error| panic!("{error}"));
            for stage in &recipe.stages {
                stage.views.check().unwrap_or_else(|error| panic!("{error}: {}", path.display()));
            }
        }
    }

    #[test]
    fn a_wrong_recipe_names_key_and_file() {
        for (from, to, expected) in [
            ("depth = 6", "deepth = 6", "line 2: unknown field `deepth`"),
            ("steps = 10", "steps = -1", "line 4: invalid value"),
            ("steps = 10", "steps = 0", "stages: expected a stage with steps"),
            (
                "batch = 8",
                "batch = 8\naccumulate = 3",
                "stages.batch: expected a batch of at most 2^20 that is a multiple of accumulate, got batch 8",
            ),
            (
                "[[stages]]",
                "loss = { gram = -1.0 }\n[[stages]]",
                "loss.gram: expected a weight of at least 0, got -1",
            ),
            (
                "[[stages]]",
                "optimiser = { clip = 0.0 }\n[[stages]]",
                "optimiser.clip: expected a number above 0",
            ),
            (
                "[[stages]]",
                "optimiser = { betas = [0.9, 1.5] }\n[[stages]]",
                "optimiser.betas: expected numbers of at least 0, below 1, got 1.5",
            ),
            ("\"model\"", "model", "line 2: "),
        ] {
            let error = read(&LEAST.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.ends_with("recipe.toml") && !error.contains('\n'),
                "{error}"
            );
        }
    }
}
