//! Video4Linux cameras: requests to the driver over `libc`, frames in memory that is shared with it.
//!
//! In `device`, from the outside in: `camera` survives what happens to a device; `capture` is one device while all is
//! well; `queue` holds its buffers; `node` says what a device is and offers, of which `negotiate` chooses; `convert`
//! and `mjpeg` make RGB; `ffi` is where `unsafe` is, over the structures of `abi`, which are those of 64-bit
//! little-endian systems. Elsewhere opening a camera is an error.
//!
//! Not here: sound, tuners, cameras whose media graph must be set up by hand, and timings of HDMI inputs
//! (`v4l2-ctl --set-dv-bt-timings query` sets those).

#[cfg_attr(
    not(all(
        feature = "camera",
        target_os = "linux",
        target_pointer_width = "64",
        target_endian = "little"
    )),
    path = "elsewhere.rs"
)]
mod device;
mod facts;

pub use device::{Camera, list_cameras};
pub use facts::{
    CameraConfig, CameraControl, CameraFormat, CameraInfo, CameraPixels, CameraRates, CameraSize, ControlKind,
};
