//! Dense DINOv2 features in real time.
//!
//! ```
//! use dinov2_edge::{CpuConfig, CpuEngine, Extractor, Features, ImageView, Taps};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = dinov2_edge::bundled_model()?;
//! let mut engine = CpuEngine::new(&model, CpuConfig::default())?;
//! let pixels = vec![127u8; 224 * 140 * 3]; // RGB, rows from the top; sides are multiples of the patch size, 14
//! let mut features = Features::new(); // reused from frame to frame
//! engine.extract(ImageView::new(&pixels, 224, 140)?, &Taps::none(), &mut features)?;
//! let patches = features.patches(); // [rows, cols, dim]
//! assert_eq!(patches.len(), 10 * 16 * 384);
//! # Ok(())
//! # }
//! ```
//!
//! This crate is the facade and the command line. The parts are crates of their own: `dinov2-core` (vocabulary),
//! `dinov2-weights` (checkpoints, the model file), `dinov2-cpu`, `dinov2-wgpu` and `dinov2-onnx` (engines), `dinov2-io` (frames in,
//! features out), `dinov2-heads` (what reads features).
//!
//! Features: `bundled-model` puts the 24 MB model into the binary, `hub` brings `pull`, `wgpu` the GPU engine; these are on by
//! default. `tract` brings the engine that runs ONNX files.

mod bundled;
mod choice;
#[cfg(feature = "wgpu")]
mod comparison;
mod engine;
pub mod hub;
pub mod machine;
pub mod pipeline;
pub mod quantise;
mod similarity;
pub mod statistics;

pub use bundled::{BUNDLED_NAME, bundled_model};
pub use choice::{Backend, ChoiceError, Precision};
#[cfg(feature = "wgpu")]
pub use comparison::{Comparison, last_comparison, open_gpu};
pub use dinov2_core::{ExtractError, Extractor, Facet, Features, ImageView, PatchGrid, Tap, Taps, VitSpec};
pub use dinov2_cpu::{
    CpuConfig, CpuEngine, CpuGrant, CpuPrecision, Incremental, Isa, Matrix, default_threads,
};
pub use dinov2_heads as heads;
pub use dinov2_io as io;
pub use dinov2_onnx as onnx;
#[cfg(feature = "view")]
pub use dinov2_view as view;
pub use dinov2_weights as weights;
#[cfg(feature = "wgpu")]
pub use dinov2_wgpu as gpu;
pub use engine::{Engine, EngineConfig, EngineError, Runner, Weights};
pub use similarity::cosine;
