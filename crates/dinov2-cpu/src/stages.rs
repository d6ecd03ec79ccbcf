//! Where a frame's time goes: wall-clock time per [`Stage`], added up over all blocks.
//!
//! The clock runs on the calling thread; what the pool's threads do within a stage counts once.

use std::time::{Duration, Instant};

/// Part of a frame's work that is timed separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Pixels to patch tokens, position table and prefix tokens included.
    PatchEmbed,
    /// All LayerNorms.
    LayerNorm,
    /// The fused projections to queries, keys and values.
    Qkv,
    /// Scores, softmax and weighted values.
    Attention,
    /// The projections after attention.
    Projection,
    /// Both matrices of the MLPs and what lies between.
    Mlp,
    /// Copies of what taps ask for.
    Taps,
    /// Comparing, gathering and scattering of rows, by an incremental engine.
    Reuse,
}

impl Stage {
    /// Every stage, in the order of a block.
    pub const ALL: [Stage; 8] = [
        Stage::PatchEmbed,
        Stage::LayerNorm,
        Stage::Qkv,
        Stage::Attention,
        Stage::Projection,
        Stage::Mlp,
        Stage::Taps,
        Stage::Reuse,
    ];

    /// `patch_embed`, `layer_norm`, …
    pub fn name(self) -> &'static str {
        match self {
            Stage::PatchEmbed => "patch_embed",
            Stage::LayerNorm => "layer_norm",
            Stage::Qkv => "qkv",
            Stage::Attention => "attention",
            Stage::Projection => "projection",
            Stage::Mlp => "mlp",
            Stage::Taps => "taps",
            Stage::Reuse => "reuse",
        }
    }
}

/// Time that the last frame spent in each stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageTimes {
    spent: [Duration; Stage::ALL.len()],
}

impl StageTimes {
    /// Time of one stage.
    pub fn get(&self, stage: Stage) -> Duration {
        self.spent[stage as usize]
    }
}

/// Adds the time since its last lap to a stage.
pub(crate) struct StageClock {
    last: Instant,
    times: StageTimes,
}

impl StageClock {
    pub(crate) fn start() -> Self {
        Self { last: Instant::now(), times: StageTimes::default() }
    }

    pub(crate) fn lap(&mut self, stage: Stage) {
        let now = Instant::now();
        self.times.spent[stage as usize] += now - self.last;
        self.last = now;
    }

    pub(crate) fn times(self) -> StageTimes {
        self.times
    }
}
