//! Raw images, in the encodings of `sensor_msgs/image_encodings.hpp`.

use super::bayer::{Mosaic, byte_of_16_bits};
use super::chunk::field;
use super::compressed::{is_measurement, quoted};
use crate::limits::check_frame_size;
use crate::recording::Image;
use crate::source::yuv::{Chroma, YuvMatrix, YuvRange, rgb_from_planes, rgb_from_yuyv};
use crate::{FormatError, Frame};

/// Layout of the bytes of a raw image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// `[height, width, channels]`, with the places of red, green and blue among the channels.
    Packed { channels: usize, rgb: [usize; 3] },
    /// The same of 16 bits.
    Packed16 { channels: usize, rgb: [usize; 3] },
    /// `[height, width]`, one colour per pixel, in 8 or 16 bits.
    Bayer { mosaic: Mosaic, bits: u32 },
    /// `[height, width / 2, 4]` as y0 u y1 v.
    Yuyv,
    /// `[height, width / 2, 4]` as u y0 v y1.
    Uyvy,
    /// Luma `[height, width]`, then chroma `[height / 2, width / 2, 2]`; with the place of u among the two.
    SemiPlanar { u: usize },
    /// Luma `[height, width]`, then chroma `[height, width, 2]` as u v.
    Nv24,
}

impl Layout {
    fn parse(encoding: &str) -> Option<Self> {
        let packed = |channels, rgb| Self::Packed { channels, rgb };
        let packed16 = |channels, rgb| Self::Packed16 { channels, rgb };
        Some(match encoding {
            "rgb8" => packed(3, [0, 1, 2]),
            "bgr8" | "8UC3" => packed(3, [2, 1, 0]),
            "rgba8" => packed(4, [0, 1, 2]),
            "bgra8" | "8UC4" => packed(4, [2, 1, 0]),
            "mono8" | "8UC1" => packed(1, [0, 0, 0]),
            "rgb16" => packed16(3, [0, 1, 2]),
            "bgr16" => packed16(3, [2, 1, 0]),
            "rgba16" => packed16(4, [0, 1, 2]),
            "bgra16" => packed16(4, [2, 1, 0]),
            "mono16" => packed16(1, [0, 0, 0]),
            "yuv422" | "uyvy" => Self::Uyvy,
            "yuv422_yuy2" | "yuyv" => Self::Yuyv,
            "nv12" => Self::SemiPlanar { u: 0 },
            "nv21" => Self::SemiPlanar { u: 1 },
            "nv24" => Self::Nv24,
            other => {
                let (mosaic, bits) = Mosaic::parse(other)?;
                Self::Bayer { mosaic, bits }
            }
        })
    }

    /// Bytes of a row and number of rows.
    fn rows(self, width_px: usize, height_px: usize) -> (usize, usize) {
        match self {
            Self::Packed { channels, .. } => (width_px * channels, height_px),
            Self::Packed16 { channels, .. } => (width_px * channels * 2, height_px),
            Self::Bayer { bits, .. } => (width_px * bits as usize / 8, height_px),
            Self::Yuyv | Self::Uyvy => (width_px * 2, height_px),
            Self::SemiPlanar { .. } => (width_px, height_px + height_px / 2),
            Self::Nv24 => (width_px, 3 * height_px),
        }
    }

    fn needs_even(self) -> (bool, bool) {
        let columns = matches!(self, Self::Yuyv | Self::Uyvy | Self::SemiPlanar { .. });
        (columns, matches!(self, Self::SemiPlanar { .. }))
    }
}

/// Decodes an image into `frame`: pixels and size. `tight` is scratch.
///
/// # Errors
/// If the encoding is not one of a colour or grey camera, or there are too few bytes for the size.
pub(super) fn decode(image: &Image<'_>, tight: &mut Vec<u8>, frame: &mut Frame) -> Result<(), FormatError> {
    let layout = Layout::parse(&image.encoding).ok_or_else(|| unknown(&image.encoding))?;
    let (width_px, height_px) = (image.width as usize, image.height as usize);
    check_frame_size(width_px, height_px)?;
    let (even_columns, even_rows) = layout.needs_even();
    if even_columns && width_px % 2 == 1 || even_rows && height_px % 2 == 1 {
        let expected = format!("even sides for {}", image.encoding);
        return Err(field("image size", expected, format!("{width_px}x{height_px}")));
    }
    let (row_bytes, rows) = layout.rows(width_px, height_px);
    let step = image.step as usize;
    if step < row_bytes || layout == Layout::Nv24 && step > row_bytes {
        // The padding of rows of chroma, which are twice as long, is not defined for nv24.
        let least = if layout == Layout::Nv24 { "" } else { "at least " };
        return Err(field("image step", format!("{least}{row_bytes}"), step.to_string()));
    }
    // The last row may come without its padding.
    let expected = step.saturating_mul(rows - 1).saturating_add(row_bytes);
    if image.data.len() < expected {
        return Err(FormatError::Truncated { what: "image", expected, got: image.data.len() });
    }
    let bytes = if step == row_bytes {
        &image.data[..expected]
    } else {
        tight.clear();
        image.data.chunks(step).take(rows).for_each(|row| tight.extend_from_slice(&row[..row_bytes]));
        tight
    };
    frame.resize(width_px, height_px);
    let big_endian = image.is_bigendian != 0;
    convert(layout, bytes, big_endian, (width_px, height_px), &mut frame.pixels)
}

fn unknown(encoding: &str) -> FormatError {
    let expected = "rgb8, bgr8, rgba8, bgra8, mono8, the same in 16 bits, bayer_{rggb,bggr,gbrg,grbg}{8,16}, yuv422, \
                    yuv422_yuy2, nv12, nv21 or nv24";
    let depth = if is_measurement(encoding) { " (depth or other measurements)" } else { "" };
    field("image encoding", expected.into(), format!("{}{depth}", quoted(encoding)))
}

/// bytes: without padding; rgb: `[height, width, 3]`. YUV is ITU-R BT.601, limited range, as OpenCV takes it.
fn convert(
    layout: Layout,
    bytes: &[u8],
    big_endian: bool,
    (width_px, height_px): (usize, usize),
    rgb: &mut [u8],
) -> Result<(), FormatError> {
    let matrix = YuvMatrix::bt601(YuvRange::Limited);
    let wide = |at: usize| {
        let pair = [bytes[2 * at], bytes[2 * at + 1]];
        u32::from(if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    };
    match layout {
        Layout::Packed { channels, rgb: places } => {
            for (target, pixel) in rgb.chunks_exact_mut(3).zip(bytes.chunks_exact(channels)) {
                target.copy_from_slice(&places.map(|place| pixel[place]));
            }
        }
        Layout::Packed16 { channels, rgb: places } => {
            for (index, target) in rgb.chunks_exact_mut(3).enumerate() {
                target.copy_from_slice(&places.map(|place| byte_of_16_bits(wide(index * channels + place))));
            }
        }
        Layout::Bayer { mosaic, bits: 8 } => {
            let at = |row, column| u32::from(bytes[row * width_px + column]);
            mosaic.rgb((width_px, height_px), at, |value| value as u8, rgb)?;
        }
        Layout::Bayer { mosaic, .. } => {
            let at = |row, column| wide(row * width_px + column);
            mosaic.rgb((width_px, height_px), at, byte_of_16_bits, rgb)?;
        }
        Layout::Yuyv => rgb_from_yuyv(bytes, rgb),
        Layout::Uyvy => {
            for (quad, pixels) in bytes.chunks_exact(4).zip(rgb.chunks_exact_mut(6)) {
                let [u, y0, v, y1] = [quad[0], quad[1], quad[2], quad[3]];
                pixels[..3].copy_from_slice(&matrix.rgb(y0, u, v));
                pixels[3..].copy_from_slice(&matrix.rgb(y1, u, v));
            }
        }
        Layout::SemiPlanar { u } => {
            let (luma, uv) = bytes.split_at(width_px * height_px);
            let (u, v) = (&uv[u..], &uv[1 - u..]);
            let chroma = Chroma { u, v, step: 2, row_bytes: width_px, shift_x: 1, shift_y: 1 };
            rgb_from_planes(matrix, width_px, luma, chroma, rgb);
        }
        Layout::Nv24 => {
            let (luma, uv) = bytes.split_at(width_px * height_px);
            let chroma =
                Chroma { u: uv, v: &uv[1..], step: 2, row_bytes: 2 * width_px, shift_x: 0, shift_y: 0 };
            rgb_from_planes(matrix, width_px, luma, chroma, rgb);
        }
    }
    Ok(())
}
