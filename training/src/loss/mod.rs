//! The loss: terms that compare a student's features with its teacher's.
//!
//! Targets are standardised first: a few coordinates of a teacher have many times the variance of the others and would dominate
//! the loss.

mod hadamard;
mod head;
mod objective;
mod resize;
mod standardise;
mod terms;

pub use head::Head;
pub use objective::{LossValue, Masked, Objective, Prediction, Targets};
pub use resize::Resizer;
pub(crate) use resize::resize_matrix;
pub use standardise::{StandardiseError, Standardiser, Statistics};
pub use terms::{cosine, gram, smooth_l1};
