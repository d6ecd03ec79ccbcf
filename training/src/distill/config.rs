//! Settings of a run besides its recipe.

use std::path::PathBuf;
use std::time::Duration;

use candle_core::Device;

use super::StudentCard;
use crate::parallel::Launch;
use crate::recipe::Recipe;
use crate::stop::Stop;

/// Settings of a run besides the recipe.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// The recipe.
    pub recipe: Recipe,
    /// Folder of the run.
    pub output: PathBuf,
    /// Go on from the last checkpoint.
    pub resume: bool,
    /// Stop after this step and its checkpoint.
    pub stop_after: Option<u64>,
    /// When checkpoints are written.
    pub checkpoint_every: CheckpointEvery,
    /// Stops the run after the step in progress, with a checkpoint.
    pub stop: Stop,
    /// Steps between measurements on held-out images.
    pub validate_every: u64,
    /// Threads that load images.
    pub workers: usize,
    /// Device of the student.
    pub device: Device,
    /// Provenance of the result.
    pub card: StudentCard,
    /// Identity of the teacher: a run is only resumed with the same.
    pub teacher: String,
    /// This process among several. They share the folder; the first one writes.
    pub launch: Option<Launch>,
}

/// When a checkpoint is due: by steps or time, whichever comes first, and always at the end of a run. The result does not depend on
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointEvery {
    /// At multiples of this step; `None`: by time alone.
    pub steps: Option<u64>,
    /// Time since the last one, or since the first step.
    pub time: Duration,
}
