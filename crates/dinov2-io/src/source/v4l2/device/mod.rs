//! Cameras on Linux.

mod abi;
mod camera;
mod capture;
mod controls;
mod convert;
mod ffi;
mod format;
mod mjpeg;
mod negotiate;
mod node;
mod queue;

use super::facts;

pub use camera::Camera;
pub use node::list_cameras;
