//! The live page of a running pipeline: what the camera sees, what the features make of it, and how it is doing.
//!
//! The pipeline calls [`View::show`] and [`View::update`], which copy and return at once; a thread of its own serves
//! `/` (the page), `/stream.mjpg`, `/snapshot`, `/ws`, `/metrics` and `/healthz`. The protocol is in
//! `docs/live-page.md`.
//!
//! Every client gets the newest frame when it is ready for one, so slow clients lose frames; pictures are made only
//! while someone looks, once for all of them. Connections, clients, message sizes, message rates and waiting times
//! are bounded by [`limits`].
//!
//! Not done here: TLS (put a proxy in front), users and rights (one token opens everything), recordings.

mod config;
mod connections;
mod feed;
mod guard;
mod health;
pub mod limits;
mod metrics;
mod page;
mod picture;
mod protocol;
mod refusal;
mod server;
mod shared;
mod socket;
mod stream;
mod view;
mod write_timeout;

pub use config::{Access, ViewConfig, ViewError};
pub use protocol::{HEADER_BYTES, MAGIC, VERSION};
pub use view::{Shown, View};
