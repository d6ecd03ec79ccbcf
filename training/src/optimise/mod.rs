//! AdamW with parameter groups and a state for checkpoints, learning-rate schedule, gradient clipping, averaged weights.

mod adam_w;
mod average;
mod clip;
mod schedule;

pub use adam_w::{AdamW, AdamWConfig};
pub use average::Average;
pub use clip::{Gradients, clip, gradients};
pub use schedule::Schedule;
