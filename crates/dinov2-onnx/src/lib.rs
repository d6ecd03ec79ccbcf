//! ONNX both ways: [`export()`] writes a model file as an ONNX graph of standard operators, and `OnnxEngine` runs ONNX
//! files, ours and others', by tract. The engine is there with the feature `tract`, the export always.
//!
//! ```
//! use dinov2_core::PatchGrid;
//! use dinov2_onnx::{ExportConfig, Precision, Resolution, export};
//! use dinov2_weights::Model;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/vits14-focus-int8.safetensors");
//! # let folder = tempfile::tempdir()?;
//! # let output = folder.path().join("vits14.onnx");
//! let model = Model::open(path)?;
//! let grid = PatchGrid::of_image(224, 224, model.spec().patch_size)?;
//! let mut config = ExportConfig::new(Resolution::Static(grid));
//! config.precision = Precision::F16;
//! let exported = export(&model, &config, &output)?;
//! assert!(exported.model.is_file());
//! # Ok(())
//! # }
//! ```
//!
//! An exported file keeps the conventional input of vision models, normalised f32 pixels, unlike the engines, which
//! take bytes: onnxruntime and TensorRT users expect it. Reading ONNX weights into a model file is the business of
//! `dinov2_weights::onnx`; nothing here trains, quantizes or optimises graphs.
//!
//! ```no_run
//! use dinov2_core::PatchGrid;
//! use dinov2_onnx::{ExportConfig, Resolution, export_to_bytes};
//! use dinov2_weights::Model;
//!
//! let model = Model::open("vits14.safetensors")?;
//! let config = ExportConfig::new(Resolution::Static(PatchGrid { rows: 16, cols: 16 }));
//! std::fs::write("vits14.onnx", export_to_bytes(&model, &config)?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "tract")]
mod engine;
mod error;
mod export;
#[cfg(feature = "tract")]
mod file_graph;
mod graph_builder;
#[cfg(feature = "tract")]
mod plan;
#[cfg(feature = "tract")]
mod runtime;
mod vit_graph;
mod weights;

#[cfg(feature = "tract")]
pub use engine::{OnnxConfig, OnnxEngine};
pub use error::OnnxError;
pub use export::{
    ExportConfig, Exported, MAX_EMBEDDED_BYTES, Precision, Resolution, export, export_to_bytes,
};
#[cfg(feature = "tract")]
pub use runtime::BACKEND;
pub use vit_graph::{PIXELS_INPUT, POSITIONS_INPUT, TOKENS_OUTPUT};
