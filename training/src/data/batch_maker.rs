//! Makes the views of a batch, and the batch of its views. Pure functions of dataset, views and plan; `loader` calls them from its
//! threads.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use dinov2_files::chain;

use super::{Batch, DataError, Dataset, Image, LoaderPlan, Pixels};
use crate::random::{Purpose, Random};
use crate::views::{Mix, Renderer, Sides, View, ViewConfig, mix};

/// Samples tried for one place of a batch before the loader gives up.
const MAX_TRIES: usize = 1_000;

/// Makes views and batches: pure functions of dataset, views and plan.
pub(super) struct BatchMaker {
    pub(super) dataset: Arc<Dataset>,
    pub(super) views: ViewConfig,
    pub(super) plan: LoaderPlan,
    /// Samples that could not be read, and why.
    pub(super) unreadable: Mutex<BTreeMap<u32, String>>,
}

/// Which view is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct ViewJob {
    pub(super) step: u64,
    /// Place in the batch.
    pub(super) slot: usize,
    /// Place in the stream of all views of all ranks.
    pub(super) position: u64,
    pub(super) sample: u32,
    pub(super) epoch: u64,
}

/// A view before it is mixed.
pub(super) struct UnmixedView {
    sample: u32,
    position: u64,
    student: Vec<u8>,
    teacher: Option<Vec<u8>>,
}

impl BatchMaker {
    /// All ranks of a step use the same sides, so that none waits for larger views of another.
    fn sides(&self, step: u64) -> Sides {
        let mut random = Random::new(Purpose::Sides, self.plan.seed, step, 0);
        let sides = &self.views.sizes_px;
        let student_px = sides[random.below(sides.len())];
        let teacher_px = self.views.teacher_sizes_px.as_ref().and_then(|sides| {
            let larger: Vec<usize> = sides.iter().copied().filter(|&side| side >= student_px).collect();
            Some(larger[random.below(larger.len())]).filter(|&side| side != student_px)
        });
        Sides { student_px, teacher_px }
    }

    /// A view of the sample, or of one that replaces it if it cannot be read.
    pub(super) fn make(&self, job: ViewJob, renderer: &mut Renderer) -> Result<UnmixedView, DataError> {
        let (sample, image) = self.readable(job)?;
        let seed = self.plan.seed;
        let view =
            View::draw(&self.views, seed, u64::from(sample), job.epoch, image.width_px, image.height_px);
        let sides = self.sides(job.step);
        let student = renderer.render(&view, &image, sides.student_px);
        let teacher = sides.teacher_px.map(|side_px| renderer.render(&view, &image, side_px));
        Ok(UnmixedView { sample, position: job.position, student, teacher })
    }

    fn readable(&self, job: ViewJob) -> Result<(u32, Image), DataError> {
        let mut replacements = Random::new(Purpose::Replacement, self.plan.seed, job.position, 0);
        let (mut sample, mut last) = (job.sample, String::new());
        for _ in 0..MAX_TRIES {
            let known = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).get(&sample).cloned();
            match known.map_or_else(|| self.decode(sample), |reason| Ok(Err(reason)))? {
                Ok(image) => return Ok((sample, image)),
                Err(reason) => last = reason,
            }
            sample = replacements.below(self.dataset.len()) as u32;
        }
        Err(DataError::Unreadable { tried: MAX_TRIES, last })
    }

    /// Decodes a sample. The inner error is the reason why it is unreadable, which is remembered; a panic of the decoder counts as
    /// one. A store out of reach is the outer error: the image may be fine, and a run without it would be another run.
    fn decode(&self, sample: u32) -> Result<Result<Image, String>, DataError> {
        let decoded = catch_unwind(AssertUnwindSafe(|| self.dataset.decode(sample as usize)));
        let reason = match decoded {
            Ok(Ok(image)) => return Ok(Ok(image)),
            Ok(Err(error @ DataError::Remote { .. })) => return Err(error),
            Ok(Err(error)) => chain(&error),
            Err(panic) => format!("the decoder panicked: {}", panic_text(&*panic)),
        };
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).insert(sample, reason.clone());
        Ok(Err(reason))
    }

    /// Puts a batch together. made: `[batch]`, in the order of the slots.
    pub(super) fn assemble(&self, step: u64, made: &[UnmixedView]) -> Batch {
        let sides = self.sides(step);
        let mixes: Vec<_> = made
            .iter()
            .enumerate()
            .map(|(slot, view)| Mix::draw(&self.views, self.plan.seed, view.position, slot, made.len()))
            .collect();
        let student: Vec<_> = made.iter().map(|view| view.student.as_slice()).collect();
        let teacher: Option<Vec<_>> = made.iter().map(|view| view.teacher.as_deref()).collect();
        Batch {
            step,
            samples: made.iter().map(|view| view.sample).collect(),
            student: stack(sides.student_px, &student, &mixes),
            teacher: sides.teacher_px.zip(teacher).map(|(side_px, views)| stack(side_px, &views, &mixes)),
        }
    }
}

/// Stacks views and mixes them; partners are taken unmixed.
fn stack(side_px: usize, views: &[&[u8]], mixes: &[Option<Mix>]) -> Pixels {
    let view_bytes = side_px * side_px * 3;
    let mut data = vec![0; views.len() * view_bytes];
    for ((own, wanted), out) in views.iter().zip(mixes).zip(data.chunks_exact_mut(view_bytes)) {
        match wanted {
            Some(wanted) => mix(own, views[wanted.partner], wanted.own_share, out),
            None => out.copy_from_slice(own),
        }
    }
    Pixels { side_px, data }
}

/// The message of a panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without words".into())
}
