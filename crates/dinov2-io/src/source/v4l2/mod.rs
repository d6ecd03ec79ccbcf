//! Video4Linux cameras: requests to the driver over `libc`, frames in memory that is shared with it.
//!
//! Modules in `device`, from the outside in: `camera` reopens a device after failures; `capture` streams from one open
//! device; `queue` holds its buffers; `node` lists what a device offers, of which `negotiate` chooses; `convert` and
//! `mjpeg` produce RGB; `ffi` contains all `unsafe` code, over the structures of `abi`, which are those of 64-bit
//! little-endian systems. On other systems (`unsupported`) opening a camera is an error.
//!
//! Not supported: sound, tuners, cameras whose media graph must be set up by hand, and timings of HDMI inputs
//! (`v4l2-ctl --set-dv-bt-timings query` sets those).

#[cfg_attr(
    not(all(
        feature = "camera",
        target_os = "linux",
        target_pointer_width = "64",
        target_endian = "little"
    )),
    path = "unsupported.rs"
)]
mod device;
mod facts;

pub use device::{Camera, list_cameras};
pub use facts::{
    CameraConfig, CameraControl, CameraFormat, CameraInfo, CameraPixels, CameraRates, CameraSize, ControlKind,
};
