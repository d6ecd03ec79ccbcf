//! The loss of a recipe: terms, their weights, heads and standardisation.
//!
//! Data shape: tokens and targets `[batch, patches, dim]` and CLS `[batch, dim]`; the student's grid and the teacher's may differ.

use candle_core::{DType, Result, Tensor};
use dinov2_core::PatchGrid;
use rand_chacha::ChaCha8Rng;

use super::terms::{cosine, gram, smooth_l1};
use super::{Head, Resizer, Standardiser};
use crate::recipe::{HeadKind, LossRecipe};
use crate::vit::{Parameters, Tokens, patches_of};

/// A teacher's features of a batch.
#[derive(Clone, Debug)]
pub struct Targets {
    /// `[batch, dim]`, after the last LayerNorm.
    pub cls: Tensor,
    /// `[batch, patches, dim]`, after the last LayerNorm.
    pub patches: Tensor,
    /// Patches of the blocks that are compared, `[batch, patches, dim]` each.
    pub taps: Vec<Tensor>,
    /// Grid of the patches.
    pub grid: PatchGrid,
}

impl Targets {
    /// The targets of some of the images.
    pub(crate) fn narrow(&self, range: std::ops::Range<usize>) -> Result<Self> {
        let part = |tensor: &Tensor| tensor.narrow(0, range.start, range.len())?.contiguous();
        let taps = self.taps.iter().map(part).collect::<Result<_>>()?;
        Ok(Self { cls: part(&self.cls)?, patches: part(&self.patches)?, taps, grid: self.grid })
    }
}

/// A student's forward pass with hidden patches.
#[derive(Clone, Debug)]
pub struct Masked {
    /// Its tokens.
    pub tokens: Tokens,
    /// `[batch, patches]` of 0 and 1: 1 where hidden.
    pub mask: Tensor,
}

/// A student's output for a batch.
#[derive(Clone, Debug)]
pub struct Prediction<'a> {
    /// Its tokens.
    pub tokens: &'a Tokens,
    /// The same images with hidden patches, in steps with this term.
    pub masked: Option<&'a Masked>,
}

/// A loss with its parts.
#[derive(Clone, Debug)]
pub struct LossValue {
    /// The sum of weighted terms, a scalar.
    pub loss: Tensor,
    /// Every term before its weight, scalars; the taps' terms are summed.
    pub terms: Vec<(&'static str, Tensor)>,
}

/// The terms of a recipe with heads, standardisations and resampling matrices.
#[derive(Debug)]
pub struct Objective {
    recipe: LossRecipe,
    cls: (Standardiser, Head),
    patches: (Standardiser, Head),
    taps: Vec<(Standardiser, Head)>,
    resizer: Resizer,
}

impl Objective {
    /// `taps`: a standardisation for every tap of the recipe.
    pub fn new(
        recipe: LossRecipe,
        cls: Standardiser,
        patches: Standardiser,
        taps: Vec<Standardiser>,
    ) -> Self {
        let taps = taps.into_iter().zip(&recipe.taps).map(|(standardiser, pair)| {
            // The coordinates of inner blocks are not aligned between networks.
            let kind = if recipe.head == HeadKind::Identity { HeadKind::Linear } else { recipe.head };
            // A name in checkpoints, which counts blocks from 1 there: those of before stay readable.
            (standardiser, Head::new(kind, format!("head.tap{}", pair.student_block + 1)))
        });
        let taps = taps.collect();
        let cls = (cls, Head::new(recipe.head, "head.cls"));
        let patches = (patches, Head::new(recipe.head, "head.patch"));
        Self { cls, patches, taps, recipe, resizer: Resizer::default() }
    }

    /// Fresh tensors of all heads, for a student of this width.
    ///
    /// # Errors
    /// Those of candle.
    pub fn head_parameters(&self, dim: usize, random: &mut ChaCha8Rng) -> Result<Parameters> {
        let mut all = Vec::new();
        for (standardiser, head) in [&self.cls, &self.patches].into_iter().chain(&self.taps) {
            let part = head.parameters(dim, standardiser.mean.elem_count(), random)?;
            all.extend(part.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())));
        }
        Ok(all.into_iter().collect())
    }

    /// Standardisations with their names, to be stored.
    pub fn standardisers(&self) -> Vec<(String, &Standardiser)> {
        let named = [("cls".into(), &self.cls.0), ("patches".into(), &self.patches.0)];
        let taps = self
            .taps
            .iter()
            .enumerate()
            .map(|(index, (standardiser, _))| (format!("tap{index}"), standardiser));
        named.into_iter().chain(taps).collect()
    }

    /// Student and teacher side by side, of CLS and of patches: `[[got, want]; 2]`. Without a head these are the
    /// tokens themselves, else the heads' outputs and standardised targets. `parameters`: of the heads.
    ///
    /// # Errors
    /// Those of candle.
    pub fn comparisons(
        &self,
        parameters: &Parameters,
        tokens: &Tokens,
        targets: &Targets,
    ) -> Result<[[Tensor; 2]; 2]> {
        let patches = self.resizer.resize(&targets.patches, targets.grid, tokens.grid)?;
        let pair = |of: &(Standardiser, Head), got: Tensor, want: &Tensor| -> Result<[Tensor; 2]> {
            match of.1.kind() {
                HeadKind::Identity => Ok([got.to_dtype(DType::F32)?.contiguous()?, want.clone()]),
                HeadKind::Linear | HeadKind::Mlp => Ok([predict(of, parameters, &got)?, of.0.apply(want)?]),
            }
        };
        Ok([
            pair(&self.cls, tokens.cls()?, &targets.cls)?,
            pair(&self.patches, tokens.patches()?.contiguous()?, &patches)?,
        ])
    }

    /// The loss of a prediction. `parameters`: of the heads.
    ///
    /// # Errors
    /// Those of candle.
    pub fn loss(
        &self,
        parameters: &Parameters,
        prediction: &Prediction<'_>,
        targets: &Targets,
    ) -> Result<LossValue> {
        let recipe = &self.recipe;
        let tokens = prediction.tokens;
        let mut sum = Sum::default();
        let want = self.cls.0.apply(&targets.cls)?;
        let got = predict(&self.cls, parameters, &tokens.cls()?)?;
        sum.add("cls", recipe.cls, || cosine(&got, &want)?.mean_all())?;

        let want =
            self.patches.0.apply(&self.resizer.resize(&targets.patches, targets.grid, tokens.grid)?)?;
        let got = predict(&self.patches, parameters, &tokens.patches()?)?;
        sum.add("patch_cosine", recipe.patch_cosine, || cosine(&got, &want)?.mean_all())?;
        sum.add("patch_smooth_l1", recipe.patch_smooth_l1, || smooth_l1(&got, &want)?.mean_all())?;
        sum.add("gram", recipe.gram, || gram(&got, &want))?;
        if let Some(masked) = prediction.masked {
            let got = predict(&self.patches, parameters, &masked.tokens.patches()?)?;
            sum.add("masked", recipe.masked, || {
                let far = (cosine(&got, &want)? * 0.9)? + (smooth_l1(&got, &want)? * 0.1)?;
                (far? * &masked.mask)?.sum_all()?
                    / (masked.mask.sum_all()?.to_scalar::<f32>()? as f64).max(1.0)
            })?;
        }
        for (((standardiser, head), want), got) in self.taps.iter().zip(&targets.taps).zip(&tokens.taps) {
            let want = standardiser.apply(&self.resizer.resize(want, targets.grid, tokens.grid)?)?;
            let got = head.forward(parameters, &patches_of(got, tokens.prefix)?.to_dtype(DType::F32)?)?;
            sum.add("tap", recipe.tap, || cosine(&got, &want)?.mean_all())?;
        }
        sum.finish()
    }
}

/// The output of a head; of [`HeadKind::Identity`] the standardised tokens.
fn predict(
    (standardiser, head): &(Standardiser, Head),
    parameters: &Parameters,
    tokens: &Tensor,
) -> Result<Tensor> {
    let tokens = tokens.to_dtype(DType::F32)?;
    match head.kind() {
        HeadKind::Identity => standardiser.apply(&tokens),
        HeadKind::Linear | HeadKind::Mlp => head.forward(parameters, &tokens),
    }
}

#[derive(Default)]
struct Sum {
    loss: Option<Tensor>,
    terms: Vec<(&'static str, Tensor)>,
}

impl Sum {
    fn add(&mut self, name: &'static str, weight: f64, term: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if weight == 0.0 {
            return Ok(());
        }
        let term = term()?;
        let weighted = (&term * weight)?;
        self.loss = Some(match self.loss.take() {
            Some(loss) => (loss + weighted)?,
            None => weighted,
        });
        let term = term.detach();
        match self.terms.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = (&*sum + term)?,
            None => self.terms.push((name, term)),
        }
        Ok(())
    }

    fn finish(self) -> Result<LossValue> {
        match self.loss {
            Some(loss) => Ok(LossValue { loss, terms: self.terms }),
            None => candle_core::bail!("loss: expected a term with a weight above 0, got none"),
        }
    }
}
