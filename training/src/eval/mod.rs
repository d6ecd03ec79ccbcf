//! Judges models: what can be done with their features, how near they are to a teacher's, what disturbs them, what they cost.
//!
//! Every task ([`Classification`], [`Segmentation`], [`Depth`], [`Fidelity`], [`Robustness`], [`Sequences`], [`Latency`]) gives the
//! [`Measure`]s of one model; a [`Report`] puts those of several beside each other, as Markdown or JSON. Models run on the CPU
//! engine, in the precision that was asked for, so a quantized student is model by the arithmetic that will run it.
//!
//! A file that cannot be read is left out: a task goes on with the rest and notes what is missing beside its figures. A file that can
//! be read but is wrong, such as a label map of another size than its image, ends it.
//!
//! Working sets are capped or streamed: one engine at a time (two for fidelity, all for latency), sums instead of features where a
//! task allows it, and named limits where it does not. Nothing is random but the corruptions, which follow from a seed.

mod classification;
mod corruptions;
mod depth;
mod depth_map;
mod error;
mod fidelity;
mod ignore_label;
mod images;
mod latency;
mod measures;
mod model;
mod pairs;
mod robustness;
mod segmentation;
mod sequences;
mod skipped;

pub use classification::Classification;
pub use corruptions::{Corruption, Severity};
pub use depth::Depth;
pub use error::EvalError;
pub use fidelity::Fidelity;
pub use ignore_label::Ignore;
pub use images::ClassFolders;
pub use latency::Latency;
pub use measures::{Embeddings, Measure, ModelFacts, Report, Row, TrackingError, Unit};
pub use model::{LoadedModel, ModelChoice};
pub use robustness::{Pictures, Robustness};
pub use segmentation::Segmentation;
pub use sequences::Sequences;
