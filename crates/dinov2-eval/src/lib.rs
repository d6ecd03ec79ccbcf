//! The arithmetic of evaluation: nearest neighbours ([`Bank`]), linear probes of classes ([`Embeddings`]), masks (J and F, [`Tracking`]),
//! depth ([`DepthScore`]), alignment ([`LinearCka`]), and the table of results ([`Report`]).
//!
//! Numbers go in, figures come out: the crate reads no files and runs no networks.

mod cka;
mod depth;
mod embeddings;
mod knn;
mod mask_scores;
mod table;
mod tracking;

pub use cka::LinearCka;
pub use depth::{DepthMap, DepthScore, patch_targets};
pub use embeddings::{Embeddings, NEIGHBOURS, held_out, mean};
pub use knn::{Bank, Neighbour};
pub use mask_scores::{Mask, boundary_measure, region_similarity};
pub use table::{Measure, ModelFacts, Report, Row, Unit};
pub use tracking::{LabelSet, Tracking, TrackingError, labels_in};
