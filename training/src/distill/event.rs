//! Events of a run, and its outcome.

use std::path::{Path, PathBuf};

use super::{Agreement, StepReport};
use crate::data::Batch;
use crate::loss::Targets;
use crate::vit::Vit;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Complete; the path of the student.
    Student(PathBuf),
    /// Stopped by request, after a checkpoint.
    Stopped {
        /// Steps done.
        steps: u64,
    },
}

/// Events of a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// Progress before the first step.
    Preparing(String),
    /// A step was done.
    Step {
        /// Its number, from 0.
        step: u64,
        /// Images of it.
        images: usize,
        /// Loss, gradient and learning rate.
        report: &'a StepReport,
    },
    /// The averaged student was measured.
    Validated {
        /// Steps done.
        steps: u64,
        /// Results by side; none without held-out images.
        agreements: &'a [Agreement],
        /// Held-out images with the teacher's targets.
        held_out: &'a [(Batch, Targets)],
        /// The averaged student.
        student: &'a Vit,
    },
    /// A checkpoint was written.
    Checkpoint(&'a Path),
    /// Number of unreadable images so far.
    Unreadable(usize),
}
