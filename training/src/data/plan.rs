//! Settings of a loader.

use super::DataError;

/// Most views of one batch of one rank.
const MAX_BATCH: usize = 1 << 16;
/// Most ranks.
const MAX_WORLD: usize = 1 << 16;
/// Most threads.
const MAX_WORKERS: usize = 1_024;
/// Most batches ahead.
const MAX_AHEAD: usize = 1_024;
/// Largest step: with the other limits, positions in the stream fit u64.
const MAX_STEP: u64 = 1 << 31;

/// How a run loads its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderPlan {
    /// Seed of all random numbers.
    pub seed: u64,
    /// Views per batch of this rank.
    pub batch: usize,
    /// Which of the processes this is; below `world`.
    pub rank: usize,
    /// Processes that train together: of a step's `world * batch` samples each takes its own `batch`.
    pub world: usize,
    /// Threads that decode and render.
    pub workers: usize,
    /// Batches that are held at most, those in the making included.
    pub ahead: usize,
}

impl LoaderPlan {
    /// Checks every value, and the first step.
    pub(super) fn check(&self, start_step: u64) -> Result<(), DataError> {
        let within = |what, got: usize, low: usize, high: usize| {
            if (low..=high).contains(&got) {
                return Ok(());
            }
            Err(DataError::Plan { what, expected: format!("{low}..={high}"), got: got.to_string() })
        };
        within("batch", self.batch, 1, MAX_BATCH)?;
        within("world", self.world, 1, MAX_WORLD)?;
        within("rank", self.rank, 0, self.world - 1)?;
        within("workers", self.workers, 1, MAX_WORKERS)?;
        within("ahead", self.ahead, 1, MAX_AHEAD)?;
        if start_step > MAX_STEP {
            let (expected, got) = (format!("0..={MAX_STEP}"), start_step.to_string());
            return Err(DataError::Plan { what: "start step", expected, got });
        }
        Ok(())
    }
}
