//! Dense DINOv2 features in real time. A photograph to its features:
//!
//! ```
//! use dinov2_edge::io::Size;
//! use dinov2_edge::{EngineConfig, Features, ImageExtractor, SelectedEngine, Taps};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/media/cat.jpg");
//! let model = dinov2_bundled::bundled_model()?.into(); // or a file: ModelSource::open(path)?
//! let engine = SelectedEngine::open(&model, EngineConfig::default())?;
//! let mut extractor = ImageExtractor::new(engine, Size::Short(224))?;
//! let mut features = Features::new(); // reused from image to image
//! let geometry = extractor.extract_file(photo, &Taps::none(), &mut features)?;
//!
//! let patch = geometry.patch_at(200.5, 120.5).expect("inside of the photograph"); // pixel (200, 120)
//! assert_eq!(features.patch(patch.row, patch.col).len(), 384);
//! # Ok(())
//! # }
//! ```
//!
//! Pixels that are in memory already, in an engine of one's choice:
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
//! | to | use |
//! |---|---|
//! | run cameras, videos and folders in real time | [`pipeline`] |
//! | read frames one by one | [`io::open`], [`io::Camera`] |
//! | compare, colour, segment or classify patches | [`heads`] |
//! | read layers, attention facets and CLS attention | [`Taps`] |
//! | run several images at once | [`Extractor::extract_batch`] |
//! | make a model file of a checkpoint, or a smaller one of it | [`weights::convert()`], [`quantize`] |
//!
//! The folder `examples` of the repository has a short program for each.
//!
//! This crate opens models and engines and joins the parts, which are crates of their own: `dinov2-core` (shared types),
//! `dinov2-weights` (checkpoints, the model file), `dinov2-cpu`, `dinov2-wgpu` and `dinov2-onnx` (engines), `dinov2-io` (frames in,
//! features out), `dinov2-heads` (what reads features), `dinov2-view` (the live page). The command line is the crate `dinov2-cli`.
//!
//! Features, all but `tract` on by default:
//!
//! - `image-formats`: GIF, QOI, TIFF and WebP. JPEG, PNG, BMP and PNM are always there.
//! - `onnx`: weights out of ONNX files, and the export.
//! - `record`: recordings (MCAP) as inputs and outputs.
//! - `view`: the live page.
//! - `wgpu`: the GPU engine.
//! - `tract`: the engine that runs ONNX files. It takes minutes to build.

mod engine;
mod image_extractor;
mod model_source;
pub mod pipeline;
pub mod quantize;

pub use dinov2_core::{
    Crop, Engine, EngineFacts, ExtractError, Extractor, Facet, Features, HeadOutput, HeadOutputs, ImageView,
    PatchGeometry, PatchGrid, PatchIndex, PixelPoint, PixelRect, ScoredBox, Tap, Taps, VitSpec,
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
