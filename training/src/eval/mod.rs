//! Evaluation of models: what their features are good for, their fidelity to a teacher, their robustness and their latency.
//!
//! Every task ([`Classification`], [`Segmentation`], [`Depth`], [`Fidelity`], [`Robustness`], [`Sequences`], [`Latency`]) gives the
//! [`Measure`]s of one model; a [`Report`] is the table of several models, as Markdown or JSON. Models run on the CPU
//! engine in the requested precision, so a quantized student is measured with the arithmetic that will run it.
//!
//! An unreadable file is skipped: a task continues with the rest and notes what is missing beside its figures. A file that can
//! be read but is invalid, such as a label map of another size than its image, is an error.
//!
//! Working sets are capped or streamed: one engine at a time (two for fidelity, all for latency), sums instead of features where a
//! task allows it, and named limits where it does not. Only corruptions are random; they follow from a seed.

mod classification;
mod corruptions;
mod depth;
mod depth_map;
mod error;
mod fidelity;
mod ignore_label;
mod images;
mod latency;
mod model;
mod pairs;
mod robustness;
mod segmentation;
mod sequences;
mod skipped;

pub use classification::Classification;
pub use corruptions::{Corruption, Severity};
pub use depth::Depth;
pub use dinov2_eval::{Embeddings, Measure, ModelFacts, Report, Row, TrackingError, Unit};
pub use error::EvalError;
pub use fidelity::Fidelity;
pub use ignore_label::Ignore;
pub use images::ClassFolders;
pub use latency::Latency;
pub use model::{LoadedModel, ModelChoice};
pub use robustness::{Pictures, Robustness};
pub use segmentation::Segmentation;
pub use sequences::Sequences;
