//! Views of images: crops, flips, changes of colour, mixtures.
//!
//! A [`View`] is a plan, a pure function of (seed, sample, draw) and of the image's size: the same values give the same
//! view again, at any side, on any thread, in a later run. [`Renderer::render`] carries it out on RGB u8: crop, resample to a square
//! (antialiased bicubic, PIL's bytes), flip, colours, grey. [`Mix`] blends two rendered views of a batch.
//!
//! The reference is torchvision: `RandomResizedCrop`, `RandomHorizontalFlip`, `ColorJitter` in `RandomApply`,
//! `RandomGrayscale`, in this order, as DINOv2 has them. What differs: random numbers come from ChaCha8 and not from PyTorch,
//! so the distribution is torchvision's and a single draw is not; colours are rounded as torchvision does on u8 tensors, which
//! up to two levels off PIL images. There is no blur and no solarisation: a student should see what its
//! teacher sees.

mod colour;
mod config;
mod plan;
mod render;

pub use colour::ColourStep;
pub use config::{ColourJitter, MAX_SIDE_PX, Sides, ViewConfig, ViewError};
pub use plan::{CropBox, Mix, View};
pub(crate) use render::mix;
pub use render::{Renderer, centre_square};
