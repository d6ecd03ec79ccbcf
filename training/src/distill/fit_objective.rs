//! Fits the standardisation of a teacher's features to the first views.

use candle_core::Device;

use super::DistillError;
use crate::data::Loader;
use crate::loss::{Objective, Standardiser, Statistics};
use crate::recipe::{LossRecipe, Standardise};
use crate::teacher::Teacher;

/// Fits the standardisation to the teacher's features of the first views. The loader must stand at step 0: a cache has no other
/// views.
///
/// # Errors
/// Views that cannot be had, features that cannot be standardised.
pub fn fit_objective(
    recipe: &LossRecipe,
    loader: &mut Loader,
    teacher: &mut dyn Teacher,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Objective, DistillError> {
    let dim = teacher.spec().dim;
    let (mut cls, mut patches) = (Statistics::new(dim), Statistics::new(dim));
    let mut taps = vec![Statistics::new(dim); recipe.taps.len()];
    let mut seen = 0;
    while seen < recipe.statistics_images {
        progress(seen, recipe.statistics_images);
        let batch = loader.next()?;
        let targets = teacher.targets(&batch)?;
        cls.add(&targets.cls)?;
        patches.add(&targets.patches)?;
        for (statistics, tap) in taps.iter_mut().zip(&targets.taps) {
            statistics.add(tap)?;
        }
        seen += batch.samples.len();
    }
    let fit = |statistics: &Statistics| Standardiser::fit(recipe.standardise, statistics, device);
    // There are too few CLS tokens to estimate a covariance.
    let cls = match recipe.standardise {
        Standardise::PhiS => Standardiser::fit(Standardise::MeanStd, &cls, device)?,
        _ => fit(&cls)?,
    };
    let taps = taps.iter().map(fit).collect::<Result<_, _>>()?;
    Ok(Objective::new(recipe.clone(), cls, fit(&patches)?, taps))
}
