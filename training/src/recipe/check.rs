//! Reads recipes and checks every value that no run can have.

use std::path::{Path, PathBuf};

use super::{ComputePrecision, LossRecipe, OptimiserRecipe, QuantizeRecipe, Recipe, Stage};

/// Most images of a step.
const MAX_BATCH: usize = 1 << 20;

/// Why a recipe is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("recipe: cannot read {}", path.display())]
    Read {
        /// The recipe.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not TOML, or not these keys.
    #[error("recipe: {problem}: {}", path.display())]
    Syntax {
        /// The recipe.
        path: PathBuf,
        /// What is wrong, with line and key.
        problem: String,
    },
    /// A value out of its range.
    #[error("recipe: {key}: expected {expected}, got {got}: {}", path.display())]
    Value {
        /// The recipe.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is possible.
        expected: String,
        /// The value found.
        got: String,
    },
}

/// A key, its valid values, and the value found.
type Problem = (&'static str, &'static str, String);

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// A file that cannot be read, keys that do not exist, values that make no sense; the key is named.
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RecipeError::Read { path: path.into(), source })?;
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

    /// The first value out of its range.
    fn problem(&self) -> Option<Problem> {
        self.loss
            .problem()
            .or_else(|| self.optimiser.problem())
            .or_else(|| self.quantize.and_then(|quantize| quantize.problem(self.precision)))
            .or_else(|| (self.steps() == 0).then(|| ("stages", "a stage with steps", "none".into())))
            .or_else(|| self.stages.iter().find_map(Stage::problem))
    }
}

fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

fn first_that_is_no_share(shares: &[(&'static str, f64)]) -> Option<Problem> {
    let (key, value) = shares.iter().find(|(_, value)| !is_share(*value))?;
    Some((key, "a number in 0..=1", value.to_string()))
}

impl LossRecipe {
    fn problem(&self) -> Option<Problem> {
        let weights = [
            ("loss.cls", self.cls),
            ("loss.patch_cosine", self.patch_cosine),
            ("loss.patch_smooth_l1", self.patch_smooth_l1),
            ("loss.gram", self.gram),
            ("loss.masked", self.masked),
            ("loss.tap", self.tap),
        ];
        if let Some((key, weight)) =
            weights.into_iter().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0))
        {
            return Some((key, "a weight of at least 0", weight.to_string()));
        }
        if self.cls + self.patch_cosine + self.patch_smooth_l1 + self.gram == 0.0 {
            return Some(("loss", "a term with a weight above 0", "none".into()));
        }
        if self.statistics_images < 2 {
            return Some(("loss.statistics_images", "at least 2", self.statistics_images.to_string()));
        }
        first_that_is_no_share(&[
            ("loss.mask_ratio", self.mask_ratio),
            ("loss.masked_steps", self.masked_steps),
        ])
    }
}

impl OptimiserRecipe {
    fn problem(&self) -> Option<Problem> {
        let numbers = [("optimiser.learning_rate", self.learning_rate), ("optimiser.clip", self.clip)];
        if let Some((key, value)) =
            numbers.into_iter().find(|(_, value)| !(*value > 0.0 && value.is_finite()))
        {
            return Some((key, "a number above 0", value.to_string()));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return Some(("optimiser.weight_decay", "a number of at least 0", self.weight_decay.to_string()));
        }
        if let Some(beta) = self.betas.into_iter().find(|beta| !(0.0..1.0).contains(beta)) {
            return Some(("optimiser.betas", "numbers of at least 0, below 1", beta.to_string()));
        }
        first_that_is_no_share(&[
            ("optimiser.final_share", self.final_share),
            ("optimiser.average", self.average),
            ("optimiser.layer_decay", self.layer_decay),
            ("optimiser.patch_embed_rate", self.patch_embed_rate),
        ])
    }
}

impl QuantizeRecipe {
    fn problem(self, precision: ComputePrecision) -> Option<Problem> {
        if !(1..=127).contains(&self.weight_limit) {
            return Some(("quantize.weight_limit", "1..=127", self.weight_limit.to_string()));
        }
        let rate = self.scale_learning_rate;
        if !(rate >= 0.0 && rate.is_finite()) {
            return Some(("quantize.scale_learning_rate", "a number of at least 0", rate.to_string()));
        }
        (precision != ComputePrecision::F32).then(|| ("precision", "f32 with [quantize]", "bf16".into()))
    }
}

impl Stage {
    fn problem(&self) -> Option<Problem> {
        let (batch, accumulate) = (self.batch, self.accumulate);
        let fits = (1..=MAX_BATCH).contains(&batch) && accumulate > 0 && batch.is_multiple_of(accumulate);
        let got = || format!("batch {batch} and accumulate {accumulate}");
        (!fits).then(|| ("stages.batch", "a batch of at most 2^20 that is a multiple of accumulate", got()))
    }
}

/// TOML's message with its line number, on one line.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
    let message = error.message().replace('\n', " ");
    line.map_or(message.clone(), |line| format!("line {line}: {message}"))
}
