//! Stubs for systems without Video4Linux and builds without the feature `camera`.

use std::convert::Infallible;

use super::facts::{CameraConfig, CameraInfo};
use crate::{Frame, Source, SourceError};

/// A camera. It cannot be opened on this system.
#[derive(Debug)]
pub struct Camera(Infallible);

/// The list of cameras, empty on this system.
pub fn list_cameras() -> Vec<CameraInfo> {
    Vec::new()
}

impl Camera {
    /// Opens a camera.
    ///
    /// # Errors
    /// Always.
    pub fn open(config: CameraConfig) -> Result<Self, SourceError> {
        let what = "cameras: expected 64-bit Linux and a build with the feature `camera`".into();
        Err(SourceError::Camera { what, path: config.device.display().to_string() })
    }

    /// The mode of the camera.
    pub fn describe(&self) -> &str {
        match self.0 {}
    }
}

impl Source for Camera {
    fn next_frame(&mut self, _frame: &mut Frame) -> Result<bool, SourceError> {
        match self.0 {}
    }

    fn len_hint(&self) -> Option<usize> {
        match self.0 {}
    }

    fn is_video(&self) -> bool {
        match self.0 {}
    }

    fn take_notes(&mut self) -> Vec<String> {
        match self.0 {}
    }
}
