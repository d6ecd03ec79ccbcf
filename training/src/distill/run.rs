//! A run from its first step to its result: stages, validation, checkpoints, and the batch that led to a loss that is not finite.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use dinov2_weights::Model;

use super::checkpoint::{Checkpoint, OpenCheckpoint, checkpoint_folder};
use super::memory::MemoryCheck;
use super::prepare::{LearnerSetup, check, loader};
use super::step::{Learner, StepReport};
use super::{
    DistillError, Event, Outcome, RunConfig, Student, agreements, student_spec, write_int8_student,
    write_student,
};
use crate::allocator::keep_pages;
use crate::data::{self, Batch, Dataset, Pixels, Unreadable, UnreadableList};
use crate::files::remove_partial;
use crate::loss::Targets;
use crate::parallel::Group;
use crate::recipe::{Recipe, Stage};
use crate::teacher::Teacher;
use crate::vit::Vit;

/// File name of the result in the folder of the run.
pub const STUDENT_FILE: &str = "student.safetensors";

/// Runs a distillation. Of several processes only the first validates, writes and reports these events.
///
/// `start`: the model that the student is pruned from, unless it starts from scratch. On a CPU, mimalloc keeps freed pages from then on
/// ([`keep_pages`]).
///
/// # Errors
/// See [`DistillError`]. The last checkpoint stays.
pub fn distill(
    config: &RunConfig,
    start: Option<&Model>,
    teacher: &mut dyn Teacher,
    dataset: Dataset,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome, DistillError> {
    let group = match &config.launch {
        None => Group::alone(),
        Some(launch) => Group::join(launch, &config.device)?,
    };
    check_parts(&config.recipe, group.world())?;
    let spec = student_spec(&config.recipe.student, start.map(Model::spec))?;
    check(&config.recipe, &spec, teacher.spec())?;
    let fingerprint = dataset.fingerprint_hex();
    let (train, held_out) = dataset.split(config.recipe.validation_images, config.recipe.seed);
    let train = Arc::new(train);
    let before = OpenCheckpoint::find(config, &fingerprint)?;
    let steps = before.as_ref().map_or(0, |before| before.checkpoint.step)
        ..config.stop_after.unwrap_or(u64::MAX).min(config.recipe.steps());
    MemoryCheck {
        recipe: &config.recipe,
        student: &spec,
        teacher: teacher.spec(),
        launch: config.launch.as_ref(),
        steps: steps.clone(),
    }
    .check(&config.device)?;
    if matches!(config.device, Device::Cpu) {
        keep_pages();
    }
    let (held_out_batches, unreadable_held_out) = held_out_targets(&held_out, config, teacher)?;
    let setup = LearnerSetup {
        config,
        spec,
        start,
        train: &train,
        held_out: &held_out_batches,
        before: before.as_ref(),
    };
    let mut learner = setup.learner(teacher, group, on_event)?;
    let mut step = steps.start;
    if let Some(OpenCheckpoint { path, tensors, .. }) = before {
        Checkpoint::restore(&path, tensors, &mut learner)?;
    }
    learner.synchronise(step)?;
    let rank = config.launch.as_ref().map_or(0, |launch| launch.rank);
    if rank == 0 {
        let folder = checkpoint_folder(&config.output);
        remove_partial(&folder).map_err(DistillError::file("clear", folder))?;
    }
    let path = config.output.join(format!("unreadable{}.txt", suffix(rank)));
    let unreadable = UnreadableList::open(path.clone()).map_err(DistillError::file("read", path))?;
    let kept = Instant::now();
    let mut run =
        Run { config, learner, held_out: held_out_batches, fingerprint, unreadable, kept, on_event };
    run.list_unreadable(&unreadable_held_out)?;
    config.stop.heed();
    while let Some(stage) = config.recipe.stage(step).filter(|_| step < steps.end) {
        match run.stage(stage, &train, teacher, step..steps.end)? {
            StageEnd { steps, stop: true } if steps < config.recipe.steps() => {
                return Ok(Outcome::Stopped { steps });
            }
            StageEnd { steps, .. } => step = steps,
        }
    }
    if run.is_first() {
        run.write_student(&held_out, train.len())?;
    }
    Ok(Outcome::Student(config.output.join(STUDENT_FILE)))
}

/// Held-out images with the teacher's targets, and the unreadable ones.
type HeldOut = (Vec<(Batch, Targets)>, Vec<Unreadable>);

fn held_out_targets(
    held_out: &Dataset,
    config: &RunConfig,
    teacher: &mut dyn Teacher,
) -> Result<HeldOut, DistillError> {
    let (batches, unreadable) = data::held_out(held_out, &config.recipe.held_out_sides())?;
    let seen = batches.into_iter().map(|batch| {
        let targets = teacher.held_out(&batch)?;
        Ok((batch, targets))
    });
    Ok((seen.collect::<Result<_, DistillError>>()?, unreadable))
}

/// Checks that every batch divides evenly among processes and parts.
fn check_parts(recipe: &Recipe, world: usize) -> Result<(), DistillError> {
    match recipe.stages.iter().find(|stage| !stage.batch.is_multiple_of(stage.accumulate * world)) {
        None => Ok(()),
        Some(Stage { batch, accumulate, .. }) => Err(DistillError::Student(format!(
            "stages.batch: expected a multiple of accumulate {accumulate} times {world} processes, got {batch}"
        ))),
    }
}

struct Run<'a, 'b> {
    config: &'a RunConfig,
    learner: Learner,
    held_out: Vec<(Batch, Targets)>,
    fingerprint: String,
    unreadable: UnreadableList,
    /// Time of the last checkpoint, or of the first step.
    kept: Instant,
    on_event: &'b mut dyn FnMut(Event<'_>),
}

/// Where a stage ended.
struct StageEnd {
    steps: u64,
    /// Whether a stop is requested.
    stop: bool,
}

impl Run<'_, '_> {
    /// Whether this process validates and writes.
    fn is_first(&self) -> bool {
        self.config.launch.as_ref().is_none_or(|launch| launch.rank == 0)
    }

    /// Runs those of `steps` that belong to the stage, until a stop is requested.
    fn stage(
        &mut self,
        stage: &Stage,
        train: &Arc<Dataset>,
        teacher: &mut dyn Teacher,
        steps: Range<u64>,
    ) -> Result<StageEnd, DistillError> {
        let (mut step, end) = (steps.start, steps.end);
        let place = self.config.launch.as_ref().map_or((0, 1), |launch| (launch.rank, launch.world));
        let mut loader = loader(self.config, place, stage, train, step)?;
        while step < end && self.config.recipe.stage(step) == Some(stage) {
            let batch = loader.next()?;
            self.list_unreadable(&loader.unreadable())?;
            let targets = teacher.targets(&batch)?;
            let report = self.learner.step(step, &batch, &targets, stage.accumulate)?;
            if !(report.loss.is_finite() && report.gradient_norm.is_finite()) {
                return Err(self.keep_batch(step, &report, &batch, train));
            }
            (self.on_event)(Event::Step { step, images: batch.samples.len(), report: &report });
            step += 1;
            let (is_last, stop) = (step == end, report.stop);
            // A requested stop does not wait for a measurement.
            let is_measured = step.is_multiple_of(self.config.validate_every) && !stop;
            if self.is_first() && (is_measured || is_last) {
                self.validate(step)?;
            }
            if self.is_first() && (is_last || stop || self.is_due(step)) {
                self.checkpoint(step)?;
            }
            if stop {
                return Ok(StageEnd { steps: step, stop });
            }
        }
        Ok(StageEnd { steps: step, stop: false })
    }

    /// Whether a checkpoint is due after this many steps.
    fn is_due(&self, steps: u64) -> bool {
        let every = self.config.checkpoint_every;
        every.steps.is_some_and(|every| steps.is_multiple_of(every)) || self.kept.elapsed() >= every.time
    }

    /// Writes the averaged student: in int8 after quantization-aware training, with its fidelity on held-out images. `images`: number of
    /// training images.
    fn write_student(&self, held_out: &Dataset, images: usize) -> Result<(), DistillError> {
        let path = self.config.output.join(STUDENT_FILE);
        let (Student { vit, rounding, .. }, card) = (&self.learner.student, &self.config.card);
        let weights = self.learner.average.weights();
        let Some(rounding) = rounding else { return write_student(vit.spec(), weights, card, &path) };
        let (batches, _) = data::held_out(held_out, &self.config.recipe.extreme_sides())?;
        let measured_on: Vec<Pixels> = batches.into_iter().map(|batch| batch.student).collect();
        write_int8_student(vit.spec(), weights, rounding, (card, images), &measured_on, &path)
    }

    fn averaged(&self) -> candle_core::Result<Vit> {
        self.learner.student.network(self.learner.average.weights())
    }

    fn validate(&mut self, steps: u64) -> Result<(), DistillError> {
        let student = self.averaged()?;
        let normalisation = self.config.card.preprocessing.normalisation();
        let heads = (&self.learner.objective, self.learner.average.weights());
        let agreements = agreements(&student, heads, &self.held_out, normalisation, &self.config.device)?;
        let (agreements, held_out) = (agreements.as_slice(), self.held_out.as_slice());
        (self.on_event)(Event::Validated { steps, agreements, held_out, student: &student });
        Ok(())
    }

    fn checkpoint(&mut self, step: u64) -> Result<(), DistillError> {
        let checkpoint = Checkpoint {
            step,
            recipe: self.config.recipe.clone(),
            dataset: self.fingerprint.clone(),
            teacher: self.config.teacher.clone(),
        };
        let path = checkpoint.write(&self.learner, &checkpoint_folder(&self.config.output))?;
        self.kept = Instant::now();
        (self.on_event)(Event::Checkpoint(&path));
        Ok(())
    }

    /// Writes the batch that led to a loss or gradient that is not finite, and returns the error.
    fn keep_batch(&self, step: u64, report: &StepReport, batch: &Batch, train: &Dataset) -> DistillError {
        let rank = self.config.launch.as_ref().map_or(0, |launch| launch.rank);
        let folder = self.config.output.join(format!("bad-batch-{step}{}", suffix(rank)));
        let kept = std::fs::create_dir_all(&folder).and_then(|()| {
            let names: Vec<&str> = batch.samples.iter().map(|sample| train.name(*sample as usize)).collect();
            crate::files::write_bytes(&folder.join("images.txt"), (names.join("\n") + "\n").as_bytes())?;
            let mut terms = format!("loss\t{}\ngradient norm\t{}\n", report.loss, report.gradient_norm);
            terms.extend(report.terms.iter().map(|(name, term)| format!("{name}\t{term}\n")));
            crate::files::write_bytes(&folder.join("terms.txt"), terms.as_bytes())?;
            let teacher = batch.teacher.iter().map(|views| (views, "-teacher"));
            for (views, whose) in std::iter::once((&batch.student, "")).chain(teacher) {
                for (index, image) in views.images().enumerate() {
                    let png = crate::files::png(image, views.side_px, views.side_px)?;
                    crate::files::write_bytes(&folder.join(format!("{index:04}{whose}.png")), &png)?;
                }
            }
            Ok(())
        });
        match kept {
            Err(source) => DistillError::File { action: "keep a batch in", path: folder, source },
            Ok(()) => {
                let StepReport { loss, gradient_norm, .. } = *report;
                DistillError::Loss { step, loss, gradient_norm, batch: folder }
            }
        }
    }

    /// Adds unreadable images to the run's list.
    fn list_unreadable(&mut self, images: &[Unreadable]) -> Result<(), DistillError> {
        let added =
            self.unreadable.add(images).map_err(DistillError::file("write", self.unreadable.path()))?;
        if let Some(count) = added {
            (self.on_event)(Event::Unreadable(count));
        }
        Ok(())
    }
}

/// File-name suffix for ranks above 0.
fn suffix(rank: usize) -> String {
    if rank == 0 { String::new() } else { format!("-process-{rank}") }
}
