//! What a run reports while it goes on, and how it ends.

use std::path::{Path, PathBuf};

use super::{Agreement, StepReport};
use crate::data::Batch;
use crate::loss::Targets;
use crate::vit::Vit;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a student, which lies here.
    Student(PathBuf),
    /// Early, because somebody asked; a checkpoint was written after these steps.
    Stopped {
        /// Steps done.
        steps: u64,
    },
}

/// What happens in a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something before the first step.
    Preparing(String),
    /// A step was done.
    Step {
        /// Its number, from 0.
        step: u64,
        /// Images of it.
        images: usize,
        /// What it came to.
        report: &'a StepReport,
    },
    /// The averaged student was measured after so many steps.
    Validated {
        /// Steps done.
        steps: u64,
        /// Results by side; none without held-out images.
        agreements: &'a [Agreement],
        /// Held-out images side by side, what the teacher makes of them, and the student.
        held_out: &'a [(Batch, Targets)],
        /// The averaged student.
        student: &'a Vit,
    },
    /// A checkpoint was written.
    Checkpoint(&'a Path),
    /// Images that cannot be read, so far.
    Unreadable(usize),
}
