//! Recipes: everything that decides what a run learns, as TOML. Where images lie and where results go is said on the command line.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::views::ViewConfig;

/// Why a recipe is not one.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("recipe: {reason}: {}", path.display())]
    Read {
        /// The recipe.
        path: PathBuf,
        /// Reason.
        reason: std::io::Error,
    },
    /// Not TOML, or not these keys.
    #[error("recipe: {problem}: {}", path.display())]
    Syntax {
        /// The recipe.
        path: PathBuf,
        /// What is wrong, with line and key.
        problem: String,
    },
    /// A value that no run can have.
    #[error("recipe: {key}: expected {expected}, got {got}: {}", path.display())]
    Value {
        /// The recipe.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is possible.
        expected: String,
        /// What stands there.
        got: String,
    },
}

/// A distillation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What learns.
    pub student: StudentRecipe,
    /// What is learnt.
    #[serde(default)]
    pub loss: LossRecipe,
    /// How.
    #[serde(default)]
    pub optimiser: OptimiserRecipe,
    /// What the networks see, stage by stage.
    pub stages: Vec<Stage>,
    /// Seed of everything that is random.
    #[serde(default)]
    pub seed: u64,
    /// Number type that the student computes in; its weights are f32.
    #[serde(default)]
    pub precision: ComputePrecision,
    /// Compute blocks again in the backward pass instead of keeping what is inside them.
    #[serde(default)]
    pub recompute: bool,
    /// Images that only measure the student.
    #[serde(default = "defaults::validation_images")]
    pub validation_images: usize,
}

/// Number type of a forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// Blocks; as in the model that it starts from, unless said.
    pub depth: Option<usize>,
    /// Width of a token.
    pub dim: Option<usize>,
    /// Attention heads.
    pub heads: Option<usize>,
    /// Width of the MLP.
    pub mlp_hidden: Option<usize>,
    /// Register tokens.
    pub registers: Option<usize>,
    /// Patch size in pixels; only from scratch.
    pub patch_size: Option<usize>,
}

/// Where weights start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// How targets are standardised.
    pub standardise: Standardise,
    /// Views that the statistics are taken from.
    pub statistics_images: usize,
    /// What maps the student's tokens to the targets.
    pub head: HeadKind,
    /// `1 - cos` of CLS.
    pub cls: f64,
    /// `1 - cos` of patches.
    pub patch_cosine: f64,
    /// Smooth L1 of patches.
    pub patch_smooth_l1: f64,
    /// Mean squared difference of the cosines between the patches of an image.
    pub gram: f64,
    /// The patch terms on patches that the student does not see.
    pub masked: f64,
    /// Share of steps that have this term: it costs a forward pass.
    pub masked_steps: f64,
    /// Share of the patches that are hidden in it.
    pub mask_ratio: f64,
    /// Blocks whose outputs are compared, counted from 1.
    pub taps: Vec<TapPair>,
    /// Weight of each of them.
    pub tap: f64,
}

/// A block of the student and the block of the teacher that it is to resemble, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapPair {
    /// Block of the student.
    pub student: usize,
    /// Block of the teacher.
    pub teacher: usize,
}

/// How targets are standardised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// What maps the student's tokens to the targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// The standardisation itself: the student's tokens are to be the teacher's. Needs the same width.
    Identity,
    /// A linear layer.
    #[default]
    Linear,
    /// Linear, LayerNorm, GELU, linear (EUPE).
    Mlp,
}

/// AdamW and what is around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimiserRecipe {
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end, as a share of the largest.
    pub final_share: f64,
    /// Steps in which it rises from 0.
    pub warm_up_steps: u64,
    /// Decay of matrices; norms, biases, LayerScale and tokens have none.
    pub weight_decay: f64,
    /// Decay of the mean of gradients, and of their squares.
    pub betas: [f64; 2],
    /// Largest norm of the gradient.
    pub clip: f64,
    /// Decay of the averaged weights, which are the result.
    pub average: f64,
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Steps.
    pub steps: u64,
    /// Images of a step, over all processes.
    pub batch: usize,
    /// Parts that a step is computed in, one after the other, to save memory.
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

impl Default for OptimiserRecipe {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            final_share: 0.01,
            warm_up_steps: 500,
            weight_decay: 0.04,
            betas: [0.9, 0.999],
            clip: 1.0,
            average: 0.9998,
        }
    }
}

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// A file that cannot be read, keys that do not exist, values that make no sense; the key is named.
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path)
            .map_err(|reason| RecipeError::Read { path: path.into(), reason })?;
        let recipe: Self = toml::from_str(&text)
            .map_err(|error| RecipeError::Syntax { path: path.into(), problem: one_line(&error, &text) })?;
        if let Some(error) = recipe.stages.iter().find_map(|stage| stage.views.check().err()) {
            return Err(RecipeError::Value {
                path: path.into(),
                key: format!("stages.views.{}", error.key),
                expected: error.expected,
                got: error.got,
            });
        }
        match recipe.problem() {
            None => Ok(recipe),
            Some((key, expected, got)) => {
                Err(RecipeError::Value { path: path.into(), key: key.into(), expected: expected.into(), got })
            }
        }
    }

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

    /// Side of the squares that held-out images are measured as: the first stage's largest.
    pub fn held_out_side_px(&self) -> usize {
        self.stages.first().and_then(|stage| stage.views.sizes_px.iter().copied().max()).unwrap_or_default()
    }

    /// The first value that no run can have: its key, what is expected and what stands there.
    fn problem(&self) -> Option<(&'static str, &'static str, String)> {
        let LossRecipe { mask_ratio, masked_steps, statistics_images, .. } = self.loss;
        let optimiser = &self.optimiser;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let weights = [
            ("loss.cls", self.loss.cls),
            ("loss.patch_cosine", self.loss.patch_cosine),
            ("loss.patch_smooth_l1", self.loss.patch_smooth_l1),
            ("loss.gram", self.loss.gram),
            ("loss.masked", self.loss.masked),
            ("loss.tap", self.loss.tap),
        ];
        if let Some((key, weight)) =
            weights.into_iter().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0))
        {
            return Some((key, "a weight of at least 0", weight.to_string()));
        }
        if self.loss.cls + self.loss.patch_cosine + self.loss.patch_smooth_l1 + self.loss.gram == 0.0 {
            return Some(("loss", "a term with a weight above 0", "none".into()));
        }
        let shares = [
            ("loss.mask_ratio", mask_ratio),
            ("loss.masked_steps", masked_steps),
            ("optimiser.final_share", optimiser.final_share),
            ("optimiser.average", optimiser.average),
            ("optimiser.betas", optimiser.betas[0].min(optimiser.betas[1])),
            ("optimiser.betas", optimiser.betas[0].max(optimiser.betas[1])),
        ];
        if let Some((key, value)) = shares.into_iter().find(|(_, value)| !share(*value)) {
            return Some((key, "a number in 0..=1", value.to_string()));
        }
        let numbers =
            [("optimiser.learning_rate", optimiser.learning_rate), ("optimiser.clip", optimiser.clip)];
        if let Some((key, value)) = numbers.into_iter().find(|(_, value)| !positive(*value)) {
            return Some((key, "a number above 0", value.to_string()));
        }
        if statistics_images < 2 {
            return Some(("loss.statistics_images", "at least 2", statistics_images.to_string()));
        }
        if self.loss.taps.iter().any(|pair| pair.student == 0 || pair.teacher == 0) {
            return Some(("loss.taps", "blocks counted from 1", "0".into()));
        }
        if self.steps() == 0 {
            return Some(("stages", "a stage with steps", "none".into()));
        }
        let wrong = self.stages.iter().find(|stage| {
            stage.batch == 0 || stage.accumulate == 0 || !stage.batch.is_multiple_of(stage.accumulate)
        });
        wrong.map(|stage| {
            let got = format!("batch {} and accumulate {}", stage.batch, stage.accumulate);
            ("stages", "a batch that is a multiple of accumulate", got)
        })
    }
}

/// TOML's message with the place, in one line.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
    let message = error.message().replace('\n', " ");
    line.map_or(message.clone(), |line| format!("line {line}: {message}"))
}

#[cfg(test)]
mod tests {
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
        for (from, to, told) in [
            ("depth = 6", "deepth = 6", "line 2: unknown field `deepth`"),
            ("steps = 10", "steps = -1", "line 4: invalid value"),
            ("steps = 10", "steps = 0", "stages: expected a stage with steps"),
            (
                "batch = 8",
                "batch = 8\naccumulate = 3",
                "stages: expected a batch that is a multiple of accumulate, got batch 8",
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
                "optimiser.betas: expected a number in 0..=1, got 1.5",
            ),
            ("\"model\"", "model", "line 2: "),
        ] {
            let error = read(&LEAST.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(
                error.contains(told) && error.ends_with("recipe.toml") && !error.contains('\n'),
                "{error}"
            );
        }
    }
}
