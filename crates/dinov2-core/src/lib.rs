//! The vocabulary that every other crate speaks: the shape of a model ([`VitSpec`]), the patch grid of a frame
//! ([`PatchGrid`]), pixels ([`ImageView`]), what to read out ([`Taps`]), what comes back ([`Features`]), where patches lie in the image ([`PatchGeometry`]) and the one
//! trait that engines implement ([`Extractor`]).
//!
//! Way of the data: an RGB u8 image whose sides are multiples of the patch size goes in; per patch one `dim`-vector
//! of f32 comes out. No file formats, no arithmetic and no engines live here. `no_std` + `alloc`.
#![no_std]

extern crate alloc;

mod engine;
mod extractor;
mod features;
mod geometry;
mod grid;
mod head_outputs;
mod image;
mod spec;
pub mod statistics;
mod taps;

pub use engine::{Engine, EngineFacts};
pub use extractor::{ExtractError, Extractor};
pub use features::Features;
pub use geometry::{Crop, PatchGeometry, PatchIndex, PixelPoint, PixelRect};
pub use grid::{GridError, PatchGrid};
pub use head_outputs::{HeadOutput, HeadOutputs, ScoredBox};
pub use image::{ImageError, ImageView, PIXEL_CENTRE};
pub use spec::{MlpKind, PositionConvention, SpecError, VitSpec, limits};
pub use taps::{Facet, Tap, TapError, Taps};
