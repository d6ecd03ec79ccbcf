//! Descriptions and configuration of cameras, available on all systems.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use crate::SourceError;

/// Pixel formats that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CameraFormat {
    /// Packed 4:2:2, y0 u y1 v.
    Yuyv,
    /// Packed 4:2:2, u y0 v y1.
    Uyvy,
    /// 4:2:0: luma, then chroma as u v.
    Nv12,
    /// Red, green, blue.
    Rgb24,
    /// Blue, green, red.
    Bgr24,
    /// JPEG, as video cameras name it (MJPG).
    Mjpeg,
    /// JPEG, as still cameras name it (JPEG).
    Jpeg,
    /// Luma only.
    Grey,
}

/// Formats with their names and the codes of `linux/videodev2.h`, the best first: colour before grey, uncompressed
/// before compressed. NV12 with its two planes in separate memory has a code of its own.
pub(super) const FORMATS: [(CameraFormat, &str, [u8; 4]); 9] = [
    (CameraFormat::Yuyv, "YUYV", *b"YUYV"),
    (CameraFormat::Uyvy, "UYVY", *b"UYVY"),
    (CameraFormat::Nv12, "NV12", *b"NV12"),
    (CameraFormat::Nv12, "NV12", *b"NM12"),
    (CameraFormat::Rgb24, "RGB24", *b"RGB3"),
    (CameraFormat::Bgr24, "BGR24", *b"BGR3"),
    (CameraFormat::Mjpeg, "MJPEG", *b"MJPG"),
    (CameraFormat::Jpeg, "JPEG", *b"JPEG"),
    (CameraFormat::Grey, "GREY", *b"GREY"),
];

impl fmt::Display for CameraFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = FORMATS.iter().find(|(format, ..)| format == self);
        f.pad(found.map_or("", |(_, name, _)| name))
    }
}

impl FromStr for CameraFormat {
    type Err = SourceError;

    fn from_str(word: &str) -> Result<Self, SourceError> {
        let found = FORMATS.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(format, ..)| *format).ok_or_else(|| SourceError::Input {
            expected: "camera format yuyv, uyvy, nv12, rgb24, bgr24, mjpeg, jpeg or grey".into(),
            got: format!("{word:?}"),
        })
    }
}

/// Configuration of a camera.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraConfig {
    /// Device node, or a link to it: those in `/dev/v4l/by-id` name one camera wherever it is plugged in.
    pub device: PathBuf,
    /// Width and height in pixels; the nearest is taken. None: about 640x480.
    pub size: Option<(usize, usize)>,
    /// Frames per second; the nearest is taken. None: about 30.
    pub fps: Option<f64>,
    /// Pixel format. None: uncompressed if it reaches the rate, else JPEG.
    pub format: Option<CameraFormat>,
    /// Names (as [`CameraControl::name`]) and values, set in this order.
    pub controls: Vec<(String, i64)>,
}

impl CameraConfig {
    /// The camera at `device` with its default mode.
    pub fn new(device: impl AsRef<Path>) -> Self {
        let device = device.as_ref().to_path_buf();
        Self { device, size: None, fps: None, format: None, controls: Vec::new() }
    }
}

/// A camera and what it offers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CameraInfo {
    /// Device node.
    pub path: PathBuf,
    /// Name given by the driver.
    pub name: String,
    /// The driver.
    pub driver: String,
    /// Bus address.
    pub bus: String,
    /// Pixel formats, in the order of the driver.
    pub formats: Vec<CameraPixels>,
    /// Controls, in the order of the driver.
    pub controls: Vec<CameraControl>,
    /// Why the camera cannot be opened, and advice.
    pub problem: Option<String>,
}

/// A pixel format that a camera offers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CameraPixels {
    /// The four characters of its code.
    pub code: String,
    /// Name given by the driver.
    pub description: String,
    /// None if it is not decoded here.
    pub format: Option<CameraFormat>,
    /// Sizes.
    pub sizes: Vec<CameraSize>,
}

/// A size, or a range of sizes, with the rates that it is given at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CameraSize {
    /// Smallest width and height in pixels.
    pub smallest: (usize, usize),
    /// Largest width and height in pixels; the same as the smallest if there is one size only.
    pub largest: (usize, usize),
    /// Step between widths and between heights.
    pub step: (usize, usize),
    /// Rates; of a range of sizes, those of the size that is nearest to 640x480 or to what was asked for.
    pub rates: CameraRates,
}

/// Frames per second that a camera offers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CameraRates {
    /// Not reported by the driver.
    Unknown,
    /// One of these, the fastest first.
    Fps(Vec<f64>),
    /// Any rate between these.
    FpsBetween(f64, f64),
}

/// A control: a setting of a camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CameraControl {
    /// Name in lower case, joined by `_`: `exposure_time_absolute`. As `v4l2-ctl` spells it.
    pub name: String,
    /// Kind of its value.
    pub kind: ControlKind,
    /// Smallest value.
    pub min: i64,
    /// Largest value.
    pub max: i64,
    /// Step between values.
    pub step: u64,
    /// Default value.
    pub default: i64,
    /// Current value, if it can be read.
    pub value: Option<i64>,
    /// Values of a menu with their names.
    pub menu: Vec<(i64, String)>,
    /// True if the control cannot be set.
    pub read_only: bool,
    /// True if setting it has no effect now because an automatic mode is on.
    pub inactive: bool,
    /// The driver's number of the control.
    #[serde(skip)]
    pub(super) id: u32,
}

/// Kind of a control's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ControlKind {
    /// A number.
    Integer,
    /// 0 or 1.
    Boolean,
    /// One of a menu.
    Menu,
    /// An action that is triggered by setting it.
    Button,
    /// A set of bits.
    Bitmask,
}

impl CameraControl {
    /// The allowed values as text: `3..=2047`, `0 or 1`, `1 (Manual Mode), 3 (Aperture Priority Mode)`.
    pub fn values(&self) -> String {
        match self.kind {
            ControlKind::Button => "anything".into(),
            ControlKind::Boolean => "0 or 1".into(),
            _ if !self.menu.is_empty() => {
                let entries: Vec<_> =
                    self.menu.iter().map(|(value, name)| format!("{value} ({name})")).collect();
                entries.join(", ")
            }
            _ if self.step > 1 => format!("{}..={} in steps of {}", self.min, self.max, self.step),
            _ => format!("{}..={}", self.min, self.max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_as_they_are_written() {
        for (format, ..) in FORMATS {
            assert_eq!(format.to_string().to_lowercase().parse::<CameraFormat>().unwrap(), format);
        }
        let error = "h264".parse::<CameraFormat>().unwrap_err().to_string();
        assert_eq!(
            error,
            "input: expected camera format yuyv, uyvy, nv12, rgb24, bgr24, mjpeg, jpeg or grey, got \"h264\""
        );
    }
}
