//! The types that all crates share: the shape of a model ([`VitSpec`]), the patch grid of a frame ([`PatchGrid`]), pixels
//! ([`ImageView`]), what to read out ([`Taps`]), the result ([`Features`]), where patches lie in the image ([`PatchGeometry`]), what
//! heads compute ([`HeadOutputs`]), and the traits that engines implement ([`Extractor`], [`Engine`]).
//!
//! Data: an RGB u8 image whose sides are multiples of the patch size goes in; per patch one vector of `dim` f32 comes out. This crate has
//! no file formats, no kernels and no engines. `no_std` + `alloc`.
//!
//! ```
//! use dinov2_core::{ExtractError, Extractor, Features, ImageView, PatchGrid, Taps, VitSpec};
//! # use dinov2_core::{MlpKind, PositionConvention};
//!
//! /// Writes the mean colour of the image into every token.
//! struct MeanColour(VitSpec);
//!
//! impl Extractor for MeanColour {
//!     fn spec(&self) -> &VitSpec {
//!         &self.0
//!     }
//!
//!     fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError> {
//!         let grid = PatchGrid::of_image(image.width_px(), image.height_px(), self.0.patch_size)?;
//!         taps.check(&self.0)?;
//!         out.prepare(&self.0, grid, taps);
//!         let sum: f32 = image.pixels().iter().map(|&value| f32::from(value)).sum();
//!         out.tokens_mut().fill(sum / image.pixels().len() as f32);
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let spec = VitSpec {
//! #     dim: 384, depth: 12, heads: 6, patch_size: 14, registers: 0, mlp: MlpKind::Gelu, mlp_hidden: 1536, layer_scale: true,
//! #     norm_eps: 1e-6, position_table: PatchGrid { rows: 37, cols: 37 }, position_convention: PositionConvention::ExactSize,
//! # };
//! let mut engine = MeanColour(spec); // a ViT-S/14
//! let pixels = vec![127; 28 * 42 * 3];
//! let mut features = Features::new(); // reused from frame to frame
//! engine.extract(ImageView::new(&pixels, 28, 42)?, &Taps::none(), &mut features)?;
//! assert_eq!(features.grid(), PatchGrid { rows: 3, cols: 2 });
//! assert_eq!(features.patch(2, 1), [127.0; 384]);
//!
//! let off_grid = ImageView::new(&pixels[..27 * 42 * 3], 27, 42)?;
//! assert!(engine.extract(off_grid, &Taps::none(), &mut features).is_err());
//! # Ok(())
//! # }
//! ```
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
