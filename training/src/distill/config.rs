//! What a run is told besides its recipe.

use std::path::PathBuf;
use std::time::Duration;

use candle_core::Device;

use super::StudentCard;
use crate::parallel::Launch;
use crate::recipe::Recipe;
use crate::stop::Stop;

/// What is said on the command line, besides the recipe.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Everything that decides what is learnt.
    pub recipe: Recipe,
    /// Folder of the run.
    pub output: PathBuf,
    /// Go on from the last checkpoint.
    pub resume: bool,
    /// End after this step, as if killed after its checkpoint.
    pub stop_after: Option<u64>,
    /// When checkpoints are written besides.
    pub checkpoint_every: CheckpointEvery,
    /// Ends the run after the step in progress, with a checkpoint.
    pub stop: Stop,
    /// Steps between measurements on held-out images.
    pub validate_every: u64,
    /// Threads that load images.
    pub workers: usize,
    /// Where the student computes.
    pub device: Device,
    /// What the result says about itself.
    pub card: StudentCard,
    /// The teacher's weights, for the checkpoint: a run is not resumed with another.
    pub teacher: String,
    /// The processes of the run, where there are several. They share the folder; the first one writes.
    pub launch: Option<Launch>,
}

/// When a checkpoint is due: by whichever comes first, and always at the end of a run, early or not. What is learnt does not depend on
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointEvery {
    /// Steps between those whose numbers are its multiples; by time alone if there is none.
    pub steps: Option<u64>,
    /// Time since the last one, or since the first step.
    pub time: Duration,
}
