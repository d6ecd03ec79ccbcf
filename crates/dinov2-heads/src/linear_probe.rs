//! Linear classification of patches: fit by L-BFGS, logits `[n, classes]`.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use nalgebra::{DMatrix, DMatrixView, DMatrixViewMut};

use crate::lbfgs::{self, Limits};

/// Patches per matrix product: 384 KiB at 384 dimensions, which fit into the second-level cache.
const BLOCK_PATCHES: usize = 256;
/// Patches per task. Fixed, so that rounding does not depend on the number of threads.
const TASK_PATCHES: usize = 8 * BLOCK_PATCHES;
/// A dimension whose variance is below this fraction of the squared mean is constant up to rounding, and is ignored.
const NEGLIGIBLE_VARIANCE: f64 = 1e-12;

/// Errors of linear probes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// An array whose length is not a multiple of the values per patch.
    #[error("{what}: expected a positive multiple of {width} values, got {got}")]
    Shape {
        /// Name of the array.
        what: &'static str,
        /// Values per patch.
        width: usize,
        /// Values given.
        got: usize,
    },
    /// Features and targets have different numbers of patches.
    #[error("targets: expected those of {features} patches, got {targets}")]
    Counts {
        /// Patches of the features.
        features: usize,
        /// Patches of the targets.
        targets: usize,
    },
    /// NaN or infinity among the features, or a negative target.
    #[error("{what}: expected {expected} values, got {value} in patch {patch}")]
    Value {
        /// Name of the array.
        what: &'static str,
        /// Allowed values.
        expected: &'static str,
        /// Index of the patch.
        patch: usize,
        /// The value, as text.
        value: String,
    },
    /// Every target is zero.
    #[error("targets: expected at least one labelled patch, got none among {patches}")]
    Unlabelled {
        /// Patches given.
        patches: usize,
    },
}

/// Configuration of the fit.
#[derive(Clone, Copy, Debug)]
pub struct ProbeConfig {
    /// Weight of the penalty `|weights|^2 / 2` (standardised features, without the bias), added to the mean cross-entropy.
    pub l2: f64,
    /// Maximum number of steps of the optimiser.
    pub max_steps: usize,
    /// The fit has converged when no entry of the gradient is larger.
    pub tolerance: f64,
    /// Number of threads; the result does not depend on it.
    pub threads: NonZeroUsize,
}

impl Default for ProbeConfig {
    /// The default penalty is just large enough that the minimum is unique and found within some hundred steps.
    fn default() -> Self {
        Self { l2: 1e-4, max_steps: 500, tolerance: 1e-4, threads: NonZeroUsize::MIN }
    }
}

/// Result of the optimiser.
#[derive(Clone, Copy, Debug)]
pub struct ProbeFit {
    /// Number of steps.
    pub steps: usize,
    /// Mean cross-entropy plus penalty, in nats.
    pub loss: f64,
    /// False if the maximum number of steps or the rounding error was reached before the tolerance.
    pub converged: bool,
}

/// Multinomial logistic regression on patch features: the linear probe of the DINOv2 paper (section 7.4) for dense features.
///
/// Minimises the mean over patches of the cross-entropy between `softmax(logits)` and each patch's soft target, plus an
/// L2 penalty, over features standardised by the training set's mean and deviation, with L-BFGS from zero. The penalty makes the
/// minimum unique, so the result depends neither on a seed nor on the order of the patches. The standardisation is folded into the
/// weights afterwards.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearProbe {
    dim: usize,
    classes: usize,
    /// `[dim, classes]`: as a column-major matrix of `classes` rows.
    weights: Vec<f32>,
    /// `[classes]`
    bias: Vec<f32>,
}

impl LinearProbe {
    /// Fits a probe. `features: [n, dim]`; `targets: [n, classes]`, the share of each class in a patch. The sum of a row is the
    /// patch's weight; a row of zeros is ignored. `progress` is called after every step with its number and the loss.
    ///
    /// # Errors
    /// Shapes that do not match, features that are not finite, negative targets, or only zero targets.
    ///
    /// # Panics
    /// If `classes` is zero.
    pub fn fit(
        (features, dim): (&[f32], usize),
        (targets, classes): (&[f32], usize),
        config: &ProbeConfig,
        progress: impl FnMut(usize, f64),
    ) -> Result<(Self, ProbeFit), ProbeError> {
        assert!(classes > 0, "classes: expected a positive number, got 0");
        let weight = check(features, dim, targets, classes)?;
        let (mean, inverse_deviation) = moments(features, dim);
        let problem = Problem { features, dim, targets, classes, weight, mean, inverse_deviation, config };
        let mut parameters = vec![0.0; (dim + 1) * classes];
        let limits = Limits { steps: config.max_steps, gradient: config.tolerance };
        let minimum = lbfgs::minimise(
            &mut parameters,
            limits,
            |point, gradient| problem.evaluate(point, gradient),
            progress,
        );
        let fit = ProbeFit {
            steps: minimum.steps,
            loss: minimum.value,
            converged: minimum.gradient <= config.tolerance,
        };
        Ok((problem.folded(&parameters), fit))
    }

    /// Width of a patch feature.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Writes the logits of `patches: [n, dim]` into `out: [n, classes]`, replacing its content.
    ///
    /// # Errors
    /// A number of values that is not a positive multiple of `dim`.
    pub fn logits_into(&self, patches: &[f32], out: &mut Vec<f32>) -> Result<(), ProbeError> {
        let count = patch_count("patch features", patches, self.dim)?;
        out.clear();
        (0..count).for_each(|_| out.extend_from_slice(&self.bias));
        let weights = DMatrixView::from_slice(&self.weights, self.classes, self.dim);
        let patches = DMatrixView::from_slice(patches, self.dim, count);
        DMatrixViewMut::from_slice(out, self.classes, count).gemm(1.0, &weights, &patches, 1.0);
        Ok(())
    }
}

fn patch_count(what: &'static str, values: &[f32], width: usize) -> Result<usize, ProbeError> {
    if width == 0 || values.is_empty() || !values.len().is_multiple_of(width) {
        return Err(ProbeError::Shape { what, width, got: values.len() });
    }
    Ok(values.len() / width)
}

/// Checks the training data and returns the sum of the targets.
fn check(features: &[f32], dim: usize, targets: &[f32], classes: usize) -> Result<f64, ProbeError> {
    let patches = patch_count("patch features", features, dim)?;
    let labelled = patch_count("targets", targets, classes)?;
    if patches != labelled {
        return Err(ProbeError::Counts { features: patches, targets: labelled });
    }
    let wrong = |what, expected, values: &[f32], width, index: Option<usize>| match index {
        Some(index) => {
            Err(ProbeError::Value { what, expected, patch: index / width, value: values[index].to_string() })
        }
        None => Ok(()),
    };
    let infinite = features.iter().position(|value| !value.is_finite());
    wrong("patch features", "finite", features, dim, infinite)?;
    let negative = targets.iter().position(|value| !(value.is_finite() && *value >= 0.0));
    wrong("targets", "non-negative", targets, classes, negative)?;
    let weight: f64 = targets.iter().map(|value| f64::from(*value)).sum();
    if weight > 0.0 { Ok(weight) } else { Err(ProbeError::Unlabelled { patches }) }
}

/// Mean and inverse standard deviation per dimension, `[dim]` each; the latter is 0 for a constant dimension.
fn moments(features: &[f32], dim: usize) -> (Vec<f32>, Vec<f32>) {
    let count = (features.len() / dim) as f64;
    let (mut mean, mut variance) = (vec![0.0f64; dim], vec![0.0f64; dim]);
    for patch in features.chunks_exact(dim) {
        mean.iter_mut().zip(patch).for_each(|(sum, value)| *sum += f64::from(*value) / count);
    }
    for patch in features.chunks_exact(dim) {
        for ((sum, mean), value) in variance.iter_mut().zip(&mean).zip(patch) {
            *sum += (f64::from(*value) - mean).powi(2) / count;
        }
    }
    let inverse = mean.iter().zip(&variance).map(|(mean, variance)| {
        if *variance > NEGLIGIBLE_VARIANCE * mean * mean { variance.sqrt().recip() as f32 } else { 0.0 }
    });
    let inverse = inverse.collect();
    (mean.into_iter().map(|value| value as f32).collect(), inverse)
}

/// The objective. Parameters: weights `[dim, classes]` for standardised features, then bias `[classes]`.
struct Problem<'a> {
    features: &'a [f32],
    dim: usize,
    targets: &'a [f32],
    classes: usize,
    /// Sum of all targets.
    weight: f64,
    mean: Vec<f32>,
    inverse_deviation: Vec<f32>,
    config: &'a ProbeConfig,
}

/// Sums over the patches of one task.
struct Partial {
    task: usize,
    loss: f64,
    /// `[classes, dim]`, then the bias' `[classes]`.
    gradient: Vec<f32>,
}

impl Problem<'_> {
    fn evaluate(&self, parameters: &[f64], gradient: &mut [f64]) -> f64 {
        let narrow: Vec<f32> = parameters.iter().map(|value| *value as f32).collect();
        let (dim, classes) = (self.dim, self.classes);
        gradient.fill(0.0);
        let mut loss = 0.0;
        for partial in self.partials(&narrow) {
            loss += partial.loss;
            let (weights, bias) = partial.gradient.split_at(classes * dim);
            for (class, row) in weights.chunks_exact(dim).enumerate() {
                let column = gradient[class..].iter_mut().step_by(classes);
                column.zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let sums = &mut gradient[dim * classes..];
            sums.iter_mut().zip(bias).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        gradient.iter_mut().for_each(|value| *value /= self.weight);
        let mut penalty = 0.0;
        for (slope, weight) in gradient[..dim * classes].iter_mut().zip(parameters) {
            *slope += self.config.l2 * weight;
            penalty += weight * weight;
        }
        loss / self.weight + self.config.l2 * penalty / 2.0
    }

    /// The sums of all tasks, in order.
    fn partials(&self, parameters: &[f32]) -> Vec<Partial> {
        let tasks = (self.features.len() / self.dim).div_ceil(TASK_PATCHES);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return done;
                }
                done.push(self.partial(task, parameters));
            }
        };
        let mut partials = std::thread::scope(|scope| {
            let others: Vec<_> =
                (1..self.config.threads.get().min(tasks)).map(|_| scope.spawn(work)).collect();
            let mut partials = work();
            for other in others {
                partials.extend(other.join().expect("a task of the probe does not panic"));
            }
            partials
        });
        partials.sort_by_key(|partial| partial.task);
        partials
    }

    fn partial(&self, task: usize, parameters: &[f32]) -> Partial {
        let (dim, classes) = (self.dim, self.classes);
        let (weights, bias) = parameters.split_at(dim * classes);
        let weights = DMatrixView::from_slice(weights, classes, dim);
        let mut partial = Partial { task, loss: 0.0, gradient: vec![0.0; (dim + 1) * classes] };
        let (slopes, bias_slopes) = partial.gradient.split_at_mut(classes * dim);
        let mut slopes = DMatrixViewMut::from_slice(slopes, dim, classes);
        let mut standard = Vec::with_capacity(BLOCK_PATCHES * dim);
        let mut logits = DMatrix::zeros(0, 0);
        let features = self.features.chunks(TASK_PATCHES * dim).nth(task).unwrap_or_default();
        let targets = self.targets.chunks(TASK_PATCHES * classes).nth(task).unwrap_or_default();
        let blocks = features.chunks(BLOCK_PATCHES * dim).zip(targets.chunks(BLOCK_PATCHES * classes));
        for (features, targets) in blocks {
            self.standardise(features, &mut standard);
            let count = standard.len() / dim;
            let standard = DMatrixView::from_slice(&standard, dim, count);
            logits.resize_mut(classes, count, 0.0f32);
            logits.gemm(1.0, &weights, &standard, 0.0);
            for (logits, targets) in
                logits.as_mut_slice().chunks_exact_mut(classes).zip(targets.chunks_exact(classes))
            {
                partial.loss += cross_entropy(logits, bias, targets);
                bias_slopes.iter_mut().zip(&*logits).for_each(|(sum, slope)| *sum += slope);
            }
            slopes.gemm(1.0, &standard, &logits.transpose(), 1.0);
        }
        partial
    }

    fn standardise(&self, features: &[f32], out: &mut Vec<f32>) {
        out.clear();
        for patch in features.chunks_exact(self.dim) {
            let scaled = patch.iter().zip(&self.mean).zip(&self.inverse_deviation);
            out.extend(scaled.map(|((value, mean), inverse)| (value - mean) * inverse));
        }
    }

    /// The probe for features that are not standardised.
    fn folded(&self, parameters: &[f64]) -> LinearProbe {
        let (dim, classes) = (self.dim, self.classes);
        let (weights, bias) = parameters.split_at(dim * classes);
        let mut bias = bias.to_vec();
        let mut folded = Vec::with_capacity(weights.len());
        let columns = weights.chunks_exact(classes).zip(&self.mean).zip(&self.inverse_deviation);
        for ((column, mean), inverse) in columns {
            for (bias, weight) in bias.iter_mut().zip(column) {
                let weight = weight * f64::from(*inverse);
                *bias -= weight * f64::from(*mean);
                folded.push(weight as f32);
            }
        }
        let bias = bias.into_iter().map(|value| value as f32).collect();
        LinearProbe { dim, classes, weights: folded, bias }
    }
}

/// Cross-entropy `-sum(target * ln(softmax(logits + bias)))` of one patch; replaces `logits` by the gradient,
/// `softmax * sum(targets) - targets`.
fn cross_entropy(logits: &mut [f32], bias: &[f32], targets: &[f32]) -> f64 {
    logits.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight: f32 = targets.iter().sum();
    let chosen: f32 = logits.iter().zip(targets).map(|(logit, target)| (logit - largest) * target).sum();
    logits.iter_mut().for_each(|logit| *logit = (*logit - largest).exp());
    let sum: f32 = logits.iter().sum();
    for (slope, target) in logits.iter_mut().zip(targets) {
        *slope = *slope / sum * weight - target;
    }
    f64::from(weight) * f64::from(sum).ln() - f64::from(chosen)
}
