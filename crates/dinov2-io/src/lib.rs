//! Frames in, features out.
//!
//! [`open`] turns what a user names (image files, folders, globs, videos, recordings, pipes, a test pattern) into one
//! [`Source`] of RGB [`Frame`]s, and [`Camera`] is one of live frames; [`Fit`] brings a frame to the patch grid of a model
//! as PIL would; [`Output`] writes the features of a frame as safetensors, npy or a picture, and `Recording` (feature
//! `mcap`) those of a whole run as ROS 2 messages; [`Labels`] are read for evaluation. Everything from outside is capped by
//! [`limits`] before it is allocated.
//!
//! No engine and no head is known here: a PCA view comes in as plain RGB bytes.

mod error;
mod fit;
mod frame;
mod jpeg;
pub mod limits;
mod names;
#[cfg(feature = "mcap")]
mod recording;
mod resample;
mod sink;
mod source;
mod statistics;

pub use dinov2_core::Crop;
pub use error::{FormatError, SourceError};
pub use fit::{Fit, FitError, Size};
pub use frame::Frame;
pub use jpeg::JpegEncoder;
pub use resample::Resampler;
pub use sink::{FeatureMeta, Format, Output, SinkError};
#[cfg(feature = "mcap")]
pub use sink::{FeatureNumbers, Recorded, Recording, RecordingMeta};
#[cfg(feature = "mcap")]
pub use source::RecordingReader;
pub use source::{
    Camera, CameraConfig, CameraControl, CameraFormat, CameraInfo, CameraPixels, CameraRates, CameraSize,
    ControlKind, Labels, LiveHandle, PairedImages, RawFormat, RawPixels, RawReader, Source, SourceOptions,
    StopSignal, TestCamera, YuvRange, decode_still, list_cameras, list_glob, list_images, mjpeg,
    natural_order, open, read_still, y4m,
};
pub use statistics::{Drops, LiveStats, Losses, Quantiles};
