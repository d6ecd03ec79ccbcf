//! Where training images come from: folders, archives, object stores.
//!
//! [`Dataset`] lists encoded images and reads any of them: files, folders, globs, tar shards (WebDataset) and manifests that
//! `training curate` wrote. [`Loader`] turns it into an endless stream of batches of views, made by threads ahead of whoever
//! trains. Batch `step` is a pure function of (dataset, views, plan, step): a run that is resumed sees what it would have
//! seen, whatever the number of threads.
//!
//! Images that cannot be read cost no run its life: another sample takes their place, and they are counted and listed.
//!
//! What it does not do: labels. What lies beside an image in a shard is left alone.

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
