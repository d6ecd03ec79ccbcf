//! The live page of a running pipeline: what the camera sees, what the features make of it, and how it is doing.
//!
//! ```no_run
//! use dinov2_core::{Features, HeadOutputs, ImageView};
//! use dinov2_view::{Access, Shown, View, ViewConfig};
//!
//! # fn next_frame() -> (Vec<u8>, Features) { unimplemented!() }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let view = View::start(ViewConfig::new("127.0.0.1:8080".parse()?, Access::Local)?)?;
//! println!("http://{}", view.address());
//! for index in 0.. {
//!     let (pixels, features) = next_frame(); // RGB, and what an engine made of it
//!     if view.wants_frame(0) {
//!         view.show(&Shown {
//!             camera: 0,
//!             image: ImageView::new(&pixels, 224, 224)?,
//!             features: &features,
//!             outputs: &HeadOutputs::new(),
//!             index,
//!             capture_ns: None,
//!             latency_ms: 20.0,
//!         });
//!     }
//! }
//! # Ok(())
//! # }
//! ```
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
