//! Sets format and rate of a device, and derives the layout of its pixels from the driver's answer.

use std::io;

use yuv::YuvStandardMatrix;

use super::abi;
use super::convert::Layout;
use super::facts::{CameraFormat, FORMATS};
use super::ffi::zeroed;
use super::negotiate::Mode;
use super::node::{Node, fps};
use crate::YuvRange;

/// Sets size and format. The driver may choose others; the layout contains its choice.
pub(super) fn set_format(node: &Node, mode: Mode) -> io::Result<Result<Layout, String>> {
    let (width, height) = (mode.size.0 as u32, mode.size.1 as u32);
    let pixels = if node.kind == abi::BUF_TYPE_CAPTURE {
        let mut format: abi::Format = zeroed();
        format.kind = node.kind;
        let pixels = &mut format.pixels;
        (pixels.width, pixels.height, pixels.pixel_format) = (width, height, mode.code);
        pixels.field = abi::FIELD_NONE;
        node.device.call(abi::S_FMT, &mut format)?;
        Pixels::of_one_plane(&format.pixels)
    } else {
        let mut format: abi::FormatMplane = zeroed();
        format.kind = node.kind;
        let pixels = &mut format.pixels;
        (pixels.width, pixels.height, pixels.pixel_format) = (width, height, mode.code);
        pixels.field = abi::FIELD_NONE;
        node.device.call(abi::S_FMT_MPLANE, &mut format)?;
        Pixels::of_planes(&format.pixels)
    };
    Ok(pixels.layout())
}

/// The driver's description of its pixels, from either structure of the interface.
struct Pixels {
    code: [u8; 4],
    width: u32,
    height: u32,
    bytes_per_line: [u32; 2],
    planes: usize,
    colorspace: u32,
    ycbcr_encoding: u32,
    quantization: u32,
}

impl Pixels {
    fn of_one_plane(format: &abi::PixelFormat) -> Self {
        Self {
            code: format.pixel_format,
            width: format.width,
            height: format.height,
            bytes_per_line: [format.bytes_per_line; 2],
            planes: 1,
            colorspace: format.colorspace,
            ycbcr_encoding: format.ycbcr_encoding,
            quantization: format.quantization,
        }
    }

    fn of_planes(format: &abi::PixelFormatMplane) -> Self {
        let planes = usize::from(format.num_planes);
        let [first, second, ..] = format.planes;
        let second = if planes > 1 { second } else { first };
        Self {
            code: format.pixel_format,
            width: format.width,
            height: format.height,
            bytes_per_line: [first.bytes_per_line, second.bytes_per_line],
            planes,
            colorspace: format.colorspace,
            ycbcr_encoding: u32::from(format.ycbcr_encoding),
            quantization: u32::from(format.quantization),
        }
    }

    fn layout(&self) -> Result<Layout, String> {
        let known = FORMATS.iter().find(|(.., code)| *code == self.code);
        let format = known.map(|(format, ..)| *format).ok_or_else(|| {
            format!("format: expected what the driver offers, got {}", String::from_utf8_lossy(&self.code))
        })?;
        let layout = Layout {
            format,
            width_px: self.width as usize,
            height_px: self.height as usize,
            row_bytes: self.bytes_per_line.map(|bytes| bytes as usize),
            planes: self.planes,
            matrix: matrix(self.colorspace, self.ycbcr_encoding),
            range: range(format, self.colorspace, self.quantization),
        };
        layout.check().map(|()| layout)
    }
}

/// `V4L2_MAP_YCBCR_ENC_DEFAULT` and the encodings of `linux/videodev2.h`. What the extended gamuts have beyond the
/// others is cut off.
fn matrix(colorspace: u32, encoding: u32) -> YuvStandardMatrix {
    let of_colorspace = match colorspace {
        abi::COLORSPACE_REC709 | abi::COLORSPACE_DCI_P3 => abi::YCBCR_709,
        abi::COLORSPACE_BT2020 => abi::YCBCR_BT2020,
        abi::COLORSPACE_SMPTE240M => abi::YCBCR_SMPTE240M,
        _ => abi::YCBCR_DEFAULT,
    };
    match if encoding == abi::YCBCR_DEFAULT { of_colorspace } else { encoding } {
        abi::YCBCR_709 | abi::YCBCR_XV709 => YuvStandardMatrix::Bt709,
        abi::YCBCR_BT2020 | abi::YCBCR_BT2020_CONST_LUM => YuvStandardMatrix::Bt2020,
        abi::YCBCR_SMPTE240M => YuvStandardMatrix::Smpte240,
        _ => YuvStandardMatrix::Bt601,
    }
}

/// `V4L2_MAP_QUANTIZATION_DEFAULT` of `linux/videodev2.h`, but for grey: drivers of monochrome sensors leave it at the
/// default and give all 256 values, which must not be cut off.
fn range(format: CameraFormat, colorspace: u32, quantization: u32) -> YuvRange {
    let colours = matches!(format, CameraFormat::Rgb24 | CameraFormat::Bgr24 | CameraFormat::Grey);
    match quantization {
        abi::QUANTIZATION_FULL => YuvRange::Full,
        abi::QUANTIZATION_LIMITED => YuvRange::Limited,
        _ if colours || colorspace == abi::COLORSPACE_JPEG => YuvRange::Full,
        _ => YuvRange::Limited,
    }
}

/// Sets the rate and returns the driver's choice. None if the driver does not report one.
pub(super) fn set_rate(node: &Node, wished: f64) -> Option<f64> {
    let mut parameters: abi::StreamParameters = zeroed();
    parameters.kind = node.kind;
    node.device.call(abi::G_PARM, &mut parameters).ok()?;
    if parameters.capability & abi::CAP_TIME_PER_FRAME != 0 {
        let denominator = (wished * 1000.0).round().clamp(1.0, 1e9) as u32;
        parameters.time_per_frame = abi::Fraction { numerator: 1000, denominator };
        node.device.call(abi::S_PARM, &mut parameters).ok()?;
    }
    fps(parameters.time_per_frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_mean_what_the_header_maps_them_to() {
        use YuvStandardMatrix::{Bt601, Bt709, Bt2020};
        let srgb = 8;
        assert_eq!(matrix(srgb, 0), Bt601);
        assert_eq!(matrix(abi::COLORSPACE_REC709, 0), Bt709);
        assert_eq!(matrix(abi::COLORSPACE_REC709, 1), Bt601);
        assert_eq!(matrix(srgb, abi::YCBCR_709), Bt709);
        assert_eq!(matrix(abi::COLORSPACE_BT2020, 0), Bt2020);
        assert_eq!(range(CameraFormat::Yuyv, srgb, 0), YuvRange::Limited);
        assert_eq!(range(CameraFormat::Yuyv, abi::COLORSPACE_JPEG, 0), YuvRange::Full);
        assert_eq!(range(CameraFormat::Yuyv, srgb, 1), YuvRange::Full);
        assert_eq!(range(CameraFormat::Rgb24, srgb, 0), YuvRange::Full);
        assert_eq!(range(CameraFormat::Rgb24, srgb, 2), YuvRange::Limited);
        assert_eq!(range(CameraFormat::Grey, srgb, 0), YuvRange::Full);
    }
}
