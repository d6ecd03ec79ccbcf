//! Selects images to train on.
//!
//! Data flow: every image is decoded, hashed and embedded (`scan`: class tokens of a model file, unit vectors in f16 on
//! disk) → the common part of all embeddings is removed (`common`; the images it is measured on: `reference`) → video is
//! thinned in time (`thin`) → exact nearest neighbours (`neighbours`) → images that show the same are grouped (`duplicates`) and
//! one per group remains; images of evaluation sets are removed → hierarchical k-means with resampling (`hierarchy`) →
//! the images nearest to the robot's frames are taken, the rest is drawn so that clusters are balanced (`balance`) → a
//! manifest that [`crate::data::Dataset`] opens, and a report (`manifest`, `report`).
//!
//! The order is that of DINOv2's LVD-142M (arXiv 2304.07193, appendix A), the clustering that of Vo et al. 2024 (arXiv
//! 2405.15613). It does not check licences or contents, and reads no labels.

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
