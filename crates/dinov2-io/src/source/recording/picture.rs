//! Image messages of ROS 2.

use crate::limits::check_frame_size;
use crate::recording::{COMPRESSED_IMAGE, CompressedImage, IMAGE, Image, message_from_cdr};
use crate::source::still::decode_still;
use crate::source::yuv::{Chroma, YuvMatrix, YuvRange, rgb_from_planes, rgb_from_yuyv};
use crate::{FormatError, Frame};

use super::chunk::field;

/// Type of an image message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `sensor_msgs/msg/CompressedImage`.
    Compressed,
    /// `sensor_msgs/msg/Image`.
    Raw,
}

impl Kind {
    /// By the name of the message type; older writers leave `msg/` out.
    pub(super) fn of_schema(name: &str) -> Option<Self> {
        let is = |full: &str| name == full || name == full.replace("/msg/", "/");
        if is(COMPRESSED_IMAGE.name) { Some(Self::Compressed) } else { is(IMAGE).then_some(Self::Raw) }
    }
}

/// Decodes one message into `frame`: pixels, size, and the stamp as capture time where it has one. `tight` is scratch.
///
/// # Errors
/// A message that is broken, or an image in an encoding that is none of a colour or grey camera.
pub(super) fn decode(
    kind: Kind,
    message: &[u8],
    tight: &mut Vec<u8>,
    frame: &mut Frame,
) -> Result<(), FormatError> {
    let broken = |error: crate::recording::CdrError| field("message", "an image".into(), error.to_string());
    let stamp = match kind {
        Kind::Compressed => {
            let message: CompressedImage<'_> = message_from_cdr(message).map_err(broken)?;
            decode_still(message.data, frame)?;
            message.header.stamp
        }
        Kind::Raw => {
            let message: Image<'_> = message_from_cdr(message).map_err(broken)?;
            decode_raw(&message, tight, frame)?;
            message.header.stamp
        }
    };
    frame.capture_ns = stamp.as_ns();
    Ok(())
}

/// Layout of the bytes of a raw image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// `[height, width, channels]`, with the places of red, green and blue among the channels.
    Packed { channels: usize, rgb: [usize; 3] },
    /// `[height, width, 2]` of 16-bit grey, whose upper byte is taken.
    Grey16 { upper: usize },
    /// `[height, width / 2, 4]` as y0 u y1 v.
    Yuyv,
    /// `[height, width / 2, 4]` as u y0 v y1.
    Uyvy,
    /// Luma `[height, width]`, then chroma `[height / 2, width / 2, 2]`; with the place of u among the two.
    SemiPlanar { u: usize },
}

impl Layout {
    /// By the names of `sensor_msgs/image_encodings.hpp`.
    fn parse(image: &Image<'_>) -> Option<Self> {
        let packed = |channels, rgb| Self::Packed { channels, rgb };
        Some(match image.encoding.as_str() {
            "rgb8" => packed(3, [0, 1, 2]),
            "bgr8" | "8UC3" => packed(3, [2, 1, 0]),
            "rgba8" => packed(4, [0, 1, 2]),
            "bgra8" | "8UC4" => packed(4, [2, 1, 0]),
            "mono8" | "8UC1" => packed(1, [0, 0, 0]),
            "mono16" => Self::Grey16 { upper: usize::from(image.is_bigendian == 0) },
            "yuv422" | "uyvy" => Self::Uyvy,
            "yuv422_yuy2" | "yuyv" => Self::Yuyv,
            "nv12" => Self::SemiPlanar { u: 0 },
            "nv21" => Self::SemiPlanar { u: 1 },
            _ => return None,
        })
    }

    /// Bytes of a row and number of rows.
    fn rows(self, width_px: usize, height_px: usize) -> (usize, usize) {
        match self {
            Self::Packed { channels, .. } => (width_px * channels, height_px),
            Self::Grey16 { .. } | Self::Yuyv | Self::Uyvy => (width_px * 2, height_px),
            Self::SemiPlanar { .. } => (width_px, height_px + height_px / 2),
        }
    }

    fn needs_even(self) -> (bool, bool) {
        let columns = matches!(self, Self::Yuyv | Self::Uyvy | Self::SemiPlanar { .. });
        (columns, matches!(self, Self::SemiPlanar { .. }))
    }
}

fn decode_raw(image: &Image<'_>, tight: &mut Vec<u8>, frame: &mut Frame) -> Result<(), FormatError> {
    let layout = Layout::parse(image).ok_or_else(|| {
        let expected = "rgb8, bgr8, rgba8, bgra8, mono8, mono16, yuv422, yuv422_yuy2, nv12 or nv21".into();
        field(
            "image encoding",
            expected,
            format!("{:?}", image.encoding.chars().take(20).collect::<String>()),
        )
    })?;
    let (width_px, height_px) = (image.width as usize, image.height as usize);
    check_frame_size(width_px, height_px)?;
    let (even_columns, even_rows) = layout.needs_even();
    if even_columns && width_px % 2 == 1 || even_rows && height_px % 2 == 1 {
        let expected = format!("even sides for {}", image.encoding);
        return Err(field("image size", expected, format!("{width_px}x{height_px}")));
    }
    let (row_bytes, rows) = layout.rows(width_px, height_px);
    let step = image.step as usize;
    if step < row_bytes {
        return Err(field("image step", format!("at least {row_bytes}"), step.to_string()));
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
    convert(layout, bytes, width_px, height_px, &mut frame.pixels);
    Ok(())
}

/// bytes: without padding; rgb: `[height, width, 3]`. YUV is ITU-R BT.601, limited range, as OpenCV takes it.
fn convert(layout: Layout, bytes: &[u8], width_px: usize, height_px: usize, rgb: &mut [u8]) {
    let matrix = YuvMatrix::bt601(YuvRange::Limited);
    match layout {
        Layout::Packed { channels, rgb: places } => {
            for (target, pixel) in rgb.chunks_exact_mut(3).zip(bytes.chunks_exact(channels)) {
                target.copy_from_slice(&places.map(|place| pixel[place]));
            }
        }
        Layout::Grey16 { upper } => {
            for (target, grey) in rgb.chunks_exact_mut(3).zip(bytes.chunks_exact(2)) {
                target.fill(grey[upper]);
            }
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
    }
}
