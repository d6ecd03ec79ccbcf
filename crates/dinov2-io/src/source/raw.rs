//! Frames without any header, as cameras and pipes give them.

use std::fmt;
use std::io::{BufReader, Read};
use std::str::FromStr;

use super::read::read_frame_bytes;
use super::yuv::{Chroma, YuvMatrix, YuvRange, rgb_from_planes, rgb_from_yuyv};
use crate::limits::check_frame_size;
use crate::{FormatError, Frame, SourceError};

/// Layout of the bytes of a raw frame. YUV is ITU-R BT.601, limited range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawPixels {
    /// `[height, width, 3]` as red, green, blue.
    #[default]
    Rgb24,
    /// `[height, width, 3]` as blue, green, red.
    Bgr24,
    /// `[height, width]`, 0..=255.
    Gray8,
    /// `[height, width / 2, 4]` as y0 u y1 v.
    Yuyv422,
    /// Luma `[height, width]`, then chroma `[height / 2, width / 2, 2]` as u v.
    Nv12,
}

const NAMES: [(&str, RawPixels); 5] = [
    ("rgb24", RawPixels::Rgb24),
    ("bgr24", RawPixels::Bgr24),
    ("gray8", RawPixels::Gray8),
    ("yuyv422", RawPixels::Yuyv422),
    ("nv12", RawPixels::Nv12),
];

impl FromStr for RawPixels {
    type Err = SourceError;

    fn from_str(word: &str) -> Result<Self, SourceError> {
        let found = NAMES.iter().find(|(name, _)| *name == word);
        found.map(|(_, pixels)| *pixels).ok_or_else(|| SourceError::Input {
            expected: "raw format rgb24, bgr24, gray8, yuyv422 or nv12".into(),
            got: format!("{word:?}"),
        })
    }
}

impl fmt::Display for RawPixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NAMES.iter().find(|(_, pixels)| pixels == self);
        f.write_str(found.map_or("", |(name, _)| name))
    }
}

/// Shape of the frames of a raw stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFormat {
    /// Width in pixels.
    pub width_px: usize,
    /// Height in pixels.
    pub height_px: usize,
    /// Layout of the bytes.
    pub pixels: RawPixels,
}

impl RawFormat {
    /// From a size such as `640x480` and a layout.
    ///
    /// # Errors
    /// No size, one beyond the limits, or odd sides where the layout wants even ones.
    pub fn new(size: &str, pixels: RawPixels) -> Result<Self, SourceError> {
        let input =
            |expected: &str| SourceError::Input { expected: expected.into(), got: format!("{size:?}") };
        let (width_px, height_px) = super::parse_size(size).ok_or_else(|| input("raw size WIDTHxHEIGHT"))?;
        let even_columns = matches!(pixels, RawPixels::Yuyv422 | RawPixels::Nv12);
        if even_columns && !width_px.is_multiple_of(2)
            || pixels == RawPixels::Nv12 && !height_px.is_multiple_of(2)
        {
            return Err(input(&format!("raw size of even sides for {pixels}")));
        }
        Ok(Self { width_px, height_px, pixels })
    }

    /// Bytes of one frame.
    pub fn frame_bytes(&self) -> usize {
        let pixels = self.width_px * self.height_px;
        match self.pixels {
            RawPixels::Rgb24 | RawPixels::Bgr24 => 3 * pixels,
            RawPixels::Gray8 => pixels,
            RawPixels::Yuyv422 => 2 * pixels,
            RawPixels::Nv12 => pixels + pixels / 2,
        }
    }
}

/// Reads frames of one size out of a stream.
#[derive(Debug)]
pub struct RawReader<R> {
    stream: BufReader<R>,
    format: RawFormat,
    bytes: Vec<u8>,
}

impl<R: Read> RawReader<R> {
    /// Reads frames of `format`.
    ///
    /// # Errors
    /// A size beyond the limits.
    pub fn new(stream: R, format: RawFormat) -> Result<Self, FormatError> {
        check_frame_size(format.width_px, format.height_px)?;
        Ok(Self { stream: BufReader::new(stream), format, bytes: Vec::new() })
    }

    /// Reads the next frame into `frame`: pixels and size. False at the end of the stream.
    ///
    /// # Errors
    /// A stream that ends within a frame.
    pub fn read_into(&mut self, frame: &mut Frame) -> Result<bool, FormatError> {
        let expected = self.format.frame_bytes();
        let direct = self.format.pixels == RawPixels::Rgb24;
        let bytes = if direct { &mut frame.pixels } else { &mut self.bytes };
        match read_frame_bytes(&mut self.stream, bytes, expected)? {
            0 => return Ok(false),
            got if got < expected => {
                return Err(FormatError::Truncated { what: "raw frame", expected, got });
            }
            _ => {}
        }
        if direct {
            (frame.width_px, frame.height_px) = (self.format.width_px, self.format.height_px);
        } else {
            frame.resize(self.format.width_px, self.format.height_px);
            self.convert(&mut frame.pixels);
        }
        Ok(true)
    }

    fn convert(&self, rgb: &mut [u8]) {
        let RawFormat { width_px, height_px, pixels } = self.format;
        match pixels {
            RawPixels::Rgb24 => rgb.copy_from_slice(&self.bytes),
            RawPixels::Bgr24 => {
                for (target, bgr) in rgb.chunks_exact_mut(3).zip(self.bytes.chunks_exact(3)) {
                    target.copy_from_slice(&[bgr[2], bgr[1], bgr[0]]);
                }
            }
            RawPixels::Gray8 => {
                for (target, grey) in rgb.chunks_exact_mut(3).zip(&self.bytes) {
                    target.fill(*grey);
                }
            }
            RawPixels::Yuyv422 => rgb_from_yuyv(&self.bytes, rgb),
            RawPixels::Nv12 => {
                let (luma, uv) = self.bytes.split_at(width_px * height_px);
                let chroma =
                    Chroma { u: uv, v: &uv[1..], step: 2, row_bytes: width_px, shift_x: 1, shift_y: 1 };
                rgb_from_planes(YuvMatrix::bt601(YuvRange::Limited), width_px, luma, chroma, rgb);
            }
        }
    }
}
