//! Everything before the first step: checks, standardisation, first weights, the loader of a stage.

use std::sync::Arc;

use dinov2_core::VitSpec;
use dinov2_weights::Model;

use super::checkpoint::OpenCheckpoint;
use super::step::student_taps;
use super::{Checkpoint, DistillError, Event, Learner, RunConfig, Student, fit_objective};
use crate::data::{Batch, Dataset, Loader, LoaderPlan};
use crate::loss::{Objective, Targets};
use crate::parallel::Group;
use crate::prune::prune;
use crate::recipe::{HeadKind, Recipe, Stage, Start};
use crate::teacher::Teacher;
use crate::vit::Parameters;

/// Batches that are loaded ahead.
const AHEAD: usize = 3;

/// Everything that a learner is built from.
pub(super) struct LearnerSetup<'a> {
    pub(super) config: &'a RunConfig,
    /// Checked shape of the student.
    pub(super) spec: VitSpec,
    pub(super) start: Option<&'a Model>,
    pub(super) train: &'a Arc<Dataset>,
    pub(super) held_out: &'a [(Batch, Targets)],
    pub(super) before: Option<&'a OpenCheckpoint>,
}

impl LearnerSetup<'_> {
    /// The learner at step 0, or ready for a checkpoint to be restored into it.
    pub(super) fn learner(
        &self,
        teacher: &mut dyn Teacher,
        group: Group,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Learner, DistillError> {
        let (config, recipe) = (self.config, &self.config.recipe);
        let spec = self.spec.clone();
        let objective = self.objective(teacher, on_event)?;
        let first = self.first_weights(&spec, on_event)?;
        let mut random = crate::random::stream(recipe.seed, "heads", 0);
        let heads = objective.head_parameters(spec.dim, &mut random)?;
        let student = Student::new(spec, &first, &heads, recipe, &config.device)?;
        let normalisation = config.card.preprocessing.normalisation();
        let learner = Learner::new(student, objective, recipe, normalisation, (&config.device, group))?;
        Ok(learner.with_stop(config.stop.clone()))
    }

    /// The loss, with the standardisation of the checkpoint or one fitted to the first views.
    fn objective(
        &self,
        teacher: &mut dyn Teacher,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Objective, DistillError> {
        let (config, recipe) = (self.config, &self.config.recipe);
        let Some(OpenCheckpoint { path, tensors, .. }) = self.before else {
            // All processes use the views of a single process, so that their standardisation is the same, and that of one process.
            let mut loader = loader(config, (0, 1), &recipe.stages[0], self.train, 0)?;
            return fit_objective(&recipe.loss, &mut loader, teacher, &config.device, &mut |done, total| {
                on_event(Event::Preparing(format!("statistics of the teacher: {done} of {total} views")));
            });
        };
        let taps = recipe.loss.taps.len();
        let mut all = Checkpoint::standardisers(path, tensors, taps, &config.device)?.into_iter();
        match (all.next(), all.next()) {
            (Some(cls), Some(patches)) => {
                Ok(Objective::new(recipe.loss.clone(), cls, patches, all.collect()))
            }
            _ => Err(DistillError::Student("standardisation: expected two at least".into())),
        }
    }

    /// The pruned model that a fresh student starts from; empty for a start from scratch or from a checkpoint.
    fn first_weights(
        &self,
        spec: &VitSpec,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Parameters, DistillError> {
        match (self.config.recipe.student.start, self.start, self.before) {
            (Start::Model, Some(model), None) => {
                let images = self.held_out.first().map(|(batch, _)| &batch.student);
                let images = images.ok_or_else(|| {
                    DistillError::Student("validation_images: expected at least 1, got 0".into())
                })?;
                let pruned = prune(model, spec, images, &mut |text| on_event(Event::Preparing(text)));
                Ok(pruned.map_err(Box::new)?.0)
            }
            _ => Ok(Parameters::default()),
        }
    }
}

/// Checks that recipe, student and teacher fit together.
pub(super) fn check(recipe: &Recipe, student: &VitSpec, teacher: &VitSpec) -> Result<(), DistillError> {
    let wrong = |key: &str, expected: String, got: usize| {
        Err(DistillError::Student(format!("{key}: expected {expected}, got {got}")))
    };
    if recipe.loss.head == HeadKind::Identity && student.dim != teacher.dim {
        return wrong("loss.head = \"identity\"", format!("the teacher's dim {}", teacher.dim), student.dim);
    }
    student_taps(recipe, student.depth)?;
    for views in recipe.stages.iter().map(|stage| &stage.views) {
        let teacher_sides = views.teacher_sizes_px.as_ref().unwrap_or(&views.sizes_px);
        for (key, sides, patch_size) in [
            ("stages.views.sizes_px", &views.sizes_px, student.patch_size),
            ("stages.views.teacher_sizes_px", teacher_sides, teacher.patch_size),
        ] {
            if let Some(side) = sides.iter().find(|side| !side.is_multiple_of(patch_size)) {
                return wrong(key, format!("multiples of the patch size {patch_size}"), *side);
            }
        }
    }
    Ok(())
}

/// Batches of a stage from a step on, for one of `world` processes.
pub(super) fn loader(
    config: &RunConfig,
    (rank, world): (usize, usize),
    stage: &Stage,
    dataset: &Arc<Dataset>,
    step: u64,
) -> Result<Loader, DistillError> {
    let plan = LoaderPlan {
        seed: config.recipe.seed,
        batch: stage.batch / world,
        rank,
        world,
        workers: config.workers,
        ahead: AHEAD,
    };
    Ok(Loader::new(Arc::clone(dataset), stage.views.clone(), plan, step)?)
}
