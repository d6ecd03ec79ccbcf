//! Checkpoint readers, the model file, weight storage and position tables.
//!
//! Data flow: a checkpoint of any kind becomes a [`checkpoint::Checkpoint`] (named tensors in the file's mapped pages),
//! [`naming`] gives the tensors canonical names, [`infer`] derives the model's shape, and [`convert()`] writes a model file
//! tensor by tensor. [`Model`] opens that file for the engines.
//!
//! Tensors in a model file have DINOv2's own names (`blocks.0.attn.qkv.weight`); [`layout`] lists them for a shape.
//! This crate does not compute features, pack weights for a CPU or access a network.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use dinov2_weights::{ConvertOptions, Model, Storage, convert};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = ConvertOptions::new(Storage::F16);
//! let output = Path::new("vits14.safetensors");
//! let converted = convert(Path::new("dinov2_vits14_pretrain.pth"), output, &options, &mut |progress| {
//!     println!("{} of {}: {}", progress.done, progress.total, progress.tensor);
//! })?;
//! let model = Model::open(output)?;
//! assert_eq!(model.spec(), &converted.metadata.spec);
//! let cls: Vec<f32> = model.f32("cls_token")?; // [1, 1, dim]
//! # Ok(())
//! # }
//! ```

pub mod checkpoint;
mod config;
mod convert;
mod error;
mod header;
pub mod infer;
mod inspect;
mod int4;
pub mod layout;
mod metadata;
mod model;
pub mod naming;
#[cfg(feature = "onnx")]
pub mod onnx;
mod pages;
mod pickle;
mod pixel_filters;
pub mod position;
mod pth;
pub mod quantize;
mod rewrite;
mod safetensors_file;
mod storage;
mod table;
mod writer;
mod zip;

pub use config::{SIDE_FILES, SideFile};
pub use convert::{
    ConvertOptions, Converted, Progress, checkpoint_from_bytes, convert, is_model_file, read_checkpoint,
};
pub use error::{ConvertError, ModelError};
pub use inspect::{SourceReport, inspect, inspect_source};
pub use int4::{INT4_GROUPS, Int4Groups, fits_int4};
pub use metadata::{
    FORMAT_VERSION, Fidelity, Gate, IMAGENET, Interpolation, METADATA_KEY, Metadata, Normalisation,
    PixelFormat, PixelSize, Preprocessing, Provenance, Quantization, Resize, SourceFit, SourceFormat,
};
pub use model::{Model, StoredTensor};
pub use pixel_filters::{PixelFilters, fold_normalisation, interleave_channels};
pub use rewrite::{write_model, write_quantized};
pub use storage::{Int8Rows, Storage, StoredDtype};
pub use writer::Numbers;
