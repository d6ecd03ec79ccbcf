//! Training images from folders, archives and object stores, and batches of views of them.
//!
//! [`Dataset`] lists encoded images and reads any of them: files, folders, globs, tar shards (WebDataset) and manifests that
//! `training curate` wrote. [`Loader`] turns it into an endless stream of batches of views, made ahead by threads.
//! Batch `step` is a pure function of (dataset, views, plan, step): a resumed run gets the batches of an uninterrupted
//! one, whatever the number of threads.
//!
//! Unreadable images do not end a run: another sample replaces each, and they are counted and listed.
//!
//! Labels and other files beside an image in a shard are ignored.

mod batch;
mod batch_maker;
mod dataset;
mod error;
mod held_out;
mod listing;
mod loader;
mod manifest;
mod names;
mod order;
mod plan;
#[cfg(feature = "object-store")]
mod remote;
mod shard;
mod sources;
mod unreadable;

pub use crate::image::Image;
pub use batch::{Batch, Pixels};
pub use dataset::Dataset;
pub use error::DataError;
pub use held_out::held_out;
pub use loader::Loader;
pub(crate) use manifest::{ManifestEntry, Member};
pub use plan::LoaderPlan;
pub use unreadable::{Unreadable, UnreadableList};
