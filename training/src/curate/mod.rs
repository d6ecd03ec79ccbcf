//! Chooses images to train on.
//!
//! Way of the data: every image is decoded, hashed and embedded (`scan`: class tokens of a model file, unit vectors in f16 on
//! disk) → what all embeddings have in common is taken away (`common`; on which images that is measured: `reference`) → video is
//! thinned in time (`thin`) → exact nearest neighbours (`neighbours`) → what shows the same picture is joined (`duplicates`) and
//! one of each remains; what shows a picture of an evaluation set goes → hierarchical k-means with resampling (`hierarchy`) →
//! what the robot's own frames are nearest to is taken, and the rest is drawn so that clusters are balanced (`balance`) → a
//! manifest that [`crate::data::Dataset`] opens, and a report (`manifest`, `report`).
//!
//! The order is that of DINOv2's LVD-142M (arXiv 2304.07193, appendix A), the clustering that of Vo et al. 2024 (arXiv
//! 2405.15613). What it does not do: judge licences or contents; nobody's label is read.

mod balance;
mod common;
mod config;
mod duplicates;
mod embeddings;
mod error;
mod hash;
mod hierarchy;
mod kmeans;
mod manifest;
mod model;
mod neighbours;
mod points;
mod reference;
mod report;
mod run;
mod scan;
mod summary;
mod thin;

pub use balance::draw_balanced;
pub use config::{CurateConfig, Sameness};
pub use embeddings::Embeddings;
pub use error::CurateError;
pub use hash::perceptual_hash;
pub use hierarchy::{Hierarchy, HierarchyOptions};
pub use kmeans::{Clustering, kmeans};
pub use manifest::Reason;
pub use model::CurateModel;
pub use neighbours::{Neighbour, Neighbours, neighbours_between, neighbours_within};
pub use points::{Floats, Points, Subset};
pub use run::curate;
pub use summary::Summary;

#[cfg(test)]
mod tests;
