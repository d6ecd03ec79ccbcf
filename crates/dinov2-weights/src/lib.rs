//! Checkpoints in, the model file, weight storage and position tables.
//!
//! Way of the data: a checkpoint of any kind is read into a [`checkpoint::Checkpoint`] (named tensors, still in the
//! file's pages), its names are made canonical ([`naming`]), the model's shape is inferred ([`infer`]), and
//! [`convert()`] streams tensor by tensor into a model file. [`Model`] opens that file for the engines.
//!
//! Tensor names in a model file are DINOv2's own (`blocks.0.attn.qkv.weight`); [`layout`] lists them for a shape.
//! Nothing here computes features, packs weights for a CPU or talks to a network.

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
pub use rewrite::{Numbers, write_model, write_quantized};
pub use storage::{Int8Rows, Storage, StoredDtype};
