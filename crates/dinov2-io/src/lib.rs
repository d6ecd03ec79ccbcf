//! Sources of frames, fitting frames to a patch grid, and sinks for features.
//!
//! [`open`] makes one [`Source`] of RGB [`Frame`]s from image files, folders, globs, videos, recordings, pipes or a test
//! pattern; [`Camera`] is a source of live frames. [`Fit`] resizes a frame to the patch grid of a model, with the pixels that
//! PIL gives. [`Output`] writes the features of each frame as safetensors, npy or a picture, and `Recording` (feature
//! `mcap`) writes a whole run as ROS 2 messages. [`Labels`] reads label maps for evaluation. Sizes from outside are checked
//! against [`limits`] before memory is allocated.
//!
//! This crate does not depend on engines or heads: a PCA view is passed in as plain RGB bytes.
//!
//! ```no_run
//! use dinov2_io::{Fit, Frame, Size, Source, SourceOptions, open};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut source = open(&["photos/"], &SourceOptions::default())?;
//! let mut fit = Fit::new(Size::Short(224), 14)?;
//! let mut frame = Frame::new();
//! while source.next_frame(&mut frame)? {
//!     let image = fit.fit(frame.view())?;
//!     println!("{}: {}x{} pixels for the engine", frame.name, image.width_px(), image.height_px());
//! }
//! # Ok(())
//! # }
//! ```

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
