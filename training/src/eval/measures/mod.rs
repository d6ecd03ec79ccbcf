//! The arithmetic of evaluation: nearest neighbours, probes, masks, depth, alignment, and the table of what was measured.
//!
//! Numbers go in, figures come out: nothing here reads a file or runs a network, and of our crates it uses dinov2-core and dinov2-heads
//! alone.

mod cka;
mod depth;
mod embeddings;
mod knn;
mod mask_scores;
mod table;
mod tracking;

pub(crate) use cka::LinearCka;
pub(crate) use depth::{DepthMap, DepthScore, patch_targets};
pub use embeddings::Embeddings;
pub(crate) use embeddings::{NEIGHBOURS, held_out, mean};
pub(crate) use knn::Bank;
pub use table::{Measure, ModelFacts, Report, Row, Unit};
pub use tracking::TrackingError;
pub(crate) use tracking::{LabelSet, Tracking, labels_in};
