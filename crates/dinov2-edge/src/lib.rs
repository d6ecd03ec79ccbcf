//! Dense DINOv2 features in real time.
//!
//! ```
//! use dinov2_edge::io::Size;
//! use dinov2_edge::{CpuConfig, CpuEngine, Features, ImageExtractor, ImageView, Taps};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = dinov2_bundled::bundled_model()?;
//! let engine = CpuEngine::new(&model, CpuConfig::default())?;
//! let mut extractor = ImageExtractor::new(engine, Size::Short(224))?;
//! let pixels = vec![127u8; 320 * 240 * 3]; // RGB, rows from the top, any size
//! let mut features = Features::new(); // reused from frame to frame
//! let geometry = extractor.extract(ImageView::new(&pixels, 320, 240)?, &Taps::none(), &mut features)?;
//! let patches = features.patches(); // [rows, cols, dim]
//! assert_eq!(patches.len(), 16 * 21 * 384);
//! let centre = geometry.centre(0, 20); // of the patch at the upper right, in pixels of the image
//! assert!(centre.x_px > 310.0 && centre.y_px == 7.5);
//! # Ok(())
//! # }
//! ```
//!
//! Images whose sides are multiples of the patch size go into an engine as they are: [`Extractor::extract`].
//!
//! This crate is the facade and the command line. The parts are crates of their own: `dinov2-core` (vocabulary),
//! `dinov2-weights` (checkpoints, the model file), `dinov2-cpu`, `dinov2-wgpu` and `dinov2-onnx` (engines), `dinov2-io` (frames in,
//! features out), `dinov2-heads` (what reads features).
//!
//! Features: `bundled-model` puts the 24 MB model into the binary, `hub` brings `pull`, `wgpu` the GPU engine; these are on by
//! default. `tract` brings the engine that runs ONNX files.

mod engine;
mod image_extractor;
mod model_source;
pub mod pipeline;
pub mod quantize;

pub use dinov2_core::{
    Crop, Engine, EngineFacts, ExtractError, Extractor, Facet, Features, ImageView, PatchGeometry, PatchGrid,
    PatchIndex, PixelPoint, PixelRect, Tap, Taps, VitSpec,
};
pub use dinov2_cpu::{
    CpuConfig, CpuEngine, CpuGrant, CpuPrecision, Incremental, Isa, Matrix, default_threads,
};
pub use dinov2_heads as heads;
pub use dinov2_io as io;
#[cfg(feature = "onnx")]
pub use dinov2_onnx as onnx;
#[cfg(feature = "view")]
pub use dinov2_view as view;
pub use dinov2_weights as weights;
#[cfg(feature = "wgpu")]
pub use dinov2_wgpu as gpu;
pub use engine::{Backend, EngineConfig, EngineError, ParseChoiceError, Precision, SelectedEngine};
#[cfg(feature = "wgpu")]
pub use engine::{Comparison, last_comparison, open_gpu};
pub use image_extractor::{ImageExtractError, ImageExtractor};
pub use model_source::ModelSource;
