//! What the networks see of an image: crops, flips, colours, mixtures.
//!
//! A [`View`] is a plan, a pure function of (seed, sample, draw) and of the image's size: whoever knows these makes the same
//! view again, at any side, on any thread, in a later run. [`Renderer::render`] carries it out on RGB u8: crop, resample to a square
//! (antialiased bicubic, PIL's bytes), flip, colours, grey. [`Mix`] blends two rendered views of a batch.
//!
//! What it follows is torchvision: `RandomResizedCrop`, `RandomHorizontalFlip`, `ColorJitter` behind `RandomApply`,
//! `RandomGrayscale`, in this order, as DINOv2 has them. What differs: random numbers come from ChaCha8 and not from PyTorch,
//! so the distribution is torchvision's and a single draw is not; colours are rounded as torchvision does on u8 tensors, which
//! is up to two levels off what it does on PIL images. There is no blur and no solarisation: a student is to see what its
//! teacher can see.

mod colour;
mod config;
mod plan;
mod render;

pub use colour::ColourStep;
pub use config::{ColourJitter, MAX_SIDE_PX, Sides, ViewConfig, ViewError};
pub use plan::{CropBox, Mix, View};
pub(crate) use render::mix;
pub use render::{Renderer, centre_square};
