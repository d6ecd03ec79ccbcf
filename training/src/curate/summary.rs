//! The result of a curation.

use super::Reason;

/// What was chosen.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Names of the images: `[images]`.
    pub names: Vec<String>,
    /// What became of each: `[images]`.
    pub reasons: Vec<Reason>,
    /// Clusters of each, the coarsest first; empty where it was left out before: `[images]`.
    pub clusters: Vec<Vec<u32>>,
    /// Clusters per level, the finest first.
    pub levels: Vec<usize>,
    /// Description of the common part that was removed.
    pub common: String,
    /// Advice for better results.
    pub advice: Option<String>,
}

impl Summary {
    /// Images that are to be trained on.
    pub fn kept(&self) -> usize {
        self.reasons.iter().filter(|reason| reason.is_kept()).count()
    }
}
