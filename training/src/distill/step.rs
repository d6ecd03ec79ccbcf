//! One step: forward and backward over parts of a batch, sums over processes, clipping, AdamW, averaged weights.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use dinov2_core::PatchGrid;
use dinov2_weights::Normalisation;

use super::{DistillError, Student, mask};
use crate::data::{Batch, Pixels};
use crate::loss::{Masked, Objective, Prediction, Targets};
use crate::optimise::{AdamW, AdamWConfig, Average, Gradients, Schedule, clip, gradients};
use crate::parallel::Group;
use crate::recipe::{ComputePrecision, Recipe};
use crate::stop::Stop;
use crate::vit::{Images, Recomputation, Request, Tokens, Vit};

/// Result of a step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Loss, mean over the batch.
    pub loss: f64,
    /// Its terms before their weights.
    pub terms: Vec<(&'static str, f64)>,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Whether the run stops after this step because one process was asked to; the same in all processes.
    pub stop: bool,
}

/// The student's blocks that are compared.
///
/// # Errors
/// Blocks that it does not have, or not in ascending order.
pub(super) fn student_taps(recipe: &Recipe, depth: usize) -> Result<Vec<usize>, DistillError> {
    let taps: Vec<usize> = recipe.loss.taps.iter().map(|pair| pair.student_block).collect();
    if taps.is_sorted_by(|a, b| a < b) && taps.iter().all(|tap| *tap < depth) {
        return Ok(taps);
    }
    Err(DistillError::Student(format!(
        "loss.taps: expected ascending values of student_block in 0..={}, got {taps:?}",
        depth - 1
    )))
}

/// A student with its objective, optimiser and average.
pub struct Learner {
    pub(super) student: Student,
    pub(super) objective: Objective,
    pub(super) optimiser: AdamW,
    pub(super) average: Average,
    schedule: Schedule,
    recipe: Recipe,
    normalisation: Normalisation,
    /// The student's blocks that are compared.
    taps: Vec<usize>,
    device: Device,
    group: Group,
    stop: Stop,
}

impl Learner {
    /// A learner at step 0, one of a group.
    ///
    /// # Errors
    /// Those of candle, or a tap beyond the student's depth.
    pub fn new(
        student: Student,
        objective: Objective,
        recipe: &Recipe,
        normalisation: Normalisation,
        (device, group): (&Device, Group),
    ) -> Result<Self, DistillError> {
        let depth = student.vit.spec().depth;
        let taps = student_taps(recipe, depth)?;
        Ok(Self {
            average: Average::new(recipe.optimiser.average, &student.variables)?,
            optimiser: AdamW::new(AdamWConfig::new(recipe, depth)),
            schedule: Schedule::new(&recipe.optimiser, recipe.steps()),
            student,
            objective,
            recipe: recipe.clone(),
            normalisation,
            taps,
            device: device.clone(),
            group,
            stop: Stop::default(),
        })
    }

    /// Reports requests of `stop` after each step.
    #[must_use]
    pub fn with_stop(self, stop: Stop) -> Self {
        Self { stop, ..self }
    }

    /// Checks that all processes begin at the same step, and copies the first one's weights to all.
    ///
    /// # Errors
    /// Processes at different steps, because some do not see the checkpoint.
    pub(super) fn synchronise(&mut self, step: u64) -> Result<(), DistillError> {
        if self.group.world() == 1 {
            return Ok(());
        }
        let mut sum = [step as f64];
        self.group.sum(&mut sum)?;
        let (mean, own) = (sum[0] / self.group.world() as f64, step as f64);
        if mean != own {
            return Err(DistillError::Student(format!(
                "--resume: expected the same checkpoint in all processes, got step {own} here and {mean} on average"
            )));
        }
        if step > 0 {
            return Ok(());
        }
        for (_, variable) in self.student.variables.iter() {
            let mut numbers = match self.group.rank() {
                0 => variable.flatten_all()?.to_vec1::<f32>()?,
                _ => vec![0.0; variable.elem_count()],
            };
            self.group.sum(&mut numbers)?;
            variable.set(&Tensor::from_vec(numbers, variable.shape(), &self.device)?)?;
        }
        self.average = Average::new(self.average.decay(), &self.student.variables)?;
        Ok(())
    }

    /// One step on a batch, in the same number of parts in all processes. A loss that is not finite leaves the weights
    /// unchanged. The report's terms are those of this process.
    ///
    /// # Errors
    /// Those of candle, and a lost process.
    pub fn step(
        &mut self,
        step: u64,
        batch: &Batch,
        targets: &Targets,
        parts: usize,
    ) -> Result<StepReport, DistillError> {
        let count = batch.samples.len();
        let size = count / parts;
        let first = (step * self.group.world() as u64 + self.group.rank() as u64) * parts as u64;
        let mut sums: Option<Part> = None;
        for part in 0..parts {
            let range = part * size..(part + 1) * size;
            let part = self.part(first + part as u64, &batch.student, targets, range)?;
            sums = Some(match sums {
                None => part,
                Some(sums) => sums.plus(part)?,
            });
        }
        let Some(Part { loss, mut terms, mut gradients }) = sums else {
            return Err(DistillError::Student("batch: expected images, got none".into()));
        };
        terms.iter_mut().for_each(|(_, term)| *term /= parts as f64);
        let (loss, stop) = self.add_up(loss, &mut gradients)?;
        let parts = parts * self.group.world();
        let share = 1.0 / parts as f64;
        let (loss, learning_rate) = (loss * share, self.schedule.at(step));
        if !loss.is_finite() {
            return Ok(StepReport { loss, terms, gradient_norm: f64::NAN, learning_rate, stop });
        }
        for gradient in gradients.values_mut().filter(|_| parts > 1) {
            *gradient = (&*gradient * share)?;
        }
        let gradient_norm = clip(&mut gradients, self.recipe.optimiser.clip)?;
        if gradient_norm.is_finite() {
            self.optimiser.step(&self.student.variables, &gradients, learning_rate, step)?;
            self.average.update(&self.student.variables, step)?;
        }
        Ok(StepReport { loss, terms, gradient_norm, learning_rate, stop })
    }

    /// Sums gradients and loss over all processes. Returns the loss and whether one of them is to stop.
    fn add_up(&mut self, loss: f64, gradients: &mut Gradients) -> Result<(f64, bool), DistillError> {
        let stop = self.stop.is_requested();
        if self.group.world() == 1 {
            return Ok((loss, stop));
        }
        // The loss, the number of processes to stop, and per variable the number of processes with a gradient.
        let mut counts = vec![loss, f64::from(u8::from(stop))];
        let variables = || self.student.variables.iter();
        counts.extend(variables().map(|(name, _)| f64::from(u8::from(gradients.contains_key(name)))));
        self.group.sum(&mut counts)?;
        let found: Vec<_> = variables()
            .zip(&counts[2..])
            .filter(|(_, count)| **count > 0.0)
            .map(|(named, _)| named)
            .collect();
        let flat = found.iter().map(|(name, variable)| match gradients.get(*name) {
            Some(gradient) => gradient.to_dtype(DType::F32)?.flatten_all(),
            None => Tensor::zeros(variable.elem_count(), DType::F32, &self.device),
        });
        let flat = Tensor::cat(&flat.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let sums = self.group.sum_tensor(&flat)?;
        let mut start = 0;
        for (name, variable) in found {
            let count = variable.elem_count();
            gradients.insert(name.to_owned(), sums.narrow(0, start, count)?.reshape(variable.shape())?);
            start += count;
        }
        Ok((counts[0], counts[1] > 0.0))
    }

    /// Forward and backward for some of the images.
    fn part(
        &self,
        index: u64,
        pixels: &Pixels,
        targets: &Targets,
        range: std::ops::Range<usize>,
    ) -> Result<Part, DistillError> {
        let images = self.images(pixels, range.clone())?;
        let targets = targets.narrow(range)?;
        let parameters = self.student.variables.parameters();
        let vit = match self.recipe.precision {
            ComputePrecision::F32 => self.student.network(&parameters)?,
            ComputePrecision::Bf16 => self.student.network(&parameters.to_dtype(DType::BF16)?)?,
        };
        let patches = images.grid().len();
        let mask = mask::draw(&self.recipe.loss, self.recipe.seed, index, images.batch(), patches)?;
        let mut passes = Vec::new();
        let tokens = self.forward(&vit, &images, Request { taps: &self.taps, mask: None }, &mut passes)?;
        let masked = match mask {
            None => None,
            Some(mask) => {
                let mask = mask.to_device(&self.device)?;
                let column = mask.reshape(((), 1))?;
                let request = Request { taps: &[], mask: Some(&column) };
                Some(Masked { tokens: self.forward(&vit, &images, request, &mut passes)?, mask })
            }
        };
        let prediction = Prediction { tokens: &tokens, masked: masked.as_ref() };
        let outcome = self.objective.loss(&parameters, &prediction, &targets)?;
        let loss = scalar(&outcome.loss)?;
        let terms = outcome.terms.iter().map(|(name, term)| Ok((*name, scalar(term)?)));
        let terms = terms.collect::<candle_core::Result<_>>()?;
        let mut grads = outcome.loss.backward()?;
        for pass in passes {
            pass.backward(&mut grads, &self.student.variables)?;
        }
        Ok(Part { loss, terms, gradients: self.gradients(&mut grads)? })
    }

    fn forward<'a>(
        &self,
        vit: &'a Vit,
        images: &Images,
        request: Request<'_>,
        passes: &mut Vec<Recomputation<'a>>,
    ) -> candle_core::Result<Tokens> {
        if !self.recipe.recompute {
            return vit.forward(images, request);
        }
        let (tokens, pass) = Recomputation::forward(vit, images, request)?;
        passes.push(pass);
        Ok(tokens)
    }

    /// Gradients of all variables. A missing one means that an operation lacks a backward pass; only the
    /// mask token and heads of absent terms may have none.
    fn gradients(&self, grads: &mut GradStore) -> candle_core::Result<Gradients> {
        gradients(grads, &self.student.variables, |name| name != "mask_token" && !name.starts_with("head."))
    }

    fn images(&self, pixels: &Pixels, range: std::ops::Range<usize>) -> candle_core::Result<Images> {
        let patch_size = self.student.vit.spec().patch_size;
        let side = pixels.side_px / patch_size;
        let image = pixels.side_px * pixels.side_px * 3;
        let data = &pixels.data[range.start * image..range.end * image];
        Images::new(data, PatchGrid { rows: side, cols: side }, patch_size, self.normalisation, &self.device)
    }
}

/// Sums over parts of a batch.
struct Part {
    loss: f64,
    terms: Vec<(&'static str, f64)>,
    gradients: Gradients,
}

impl Part {
    fn plus(mut self, other: Self) -> candle_core::Result<Self> {
        self.loss += other.loss;
        for (name, term) in other.terms {
            match self.terms.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += term,
                None => self.terms.push((name, term)),
            }
        }
        for (name, gradient) in other.gradients {
            let sum = match self.gradients.get(&name) {
                Some(sum) => (sum + gradient)?,
                None => gradient,
            };
            self.gradients.insert(name, sum);
        }
        Ok(self)
    }
}

fn scalar(tensor: &Tensor) -> candle_core::Result<f64> {
    tensor.to_dtype(DType::F32)?.to_scalar::<f32>().map(f64::from)
}
