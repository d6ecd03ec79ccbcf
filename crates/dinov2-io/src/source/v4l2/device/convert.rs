//! From a driver's buffer to RGB.

use yuv::{YuvBiPlanarImage, YuvGrayImage, YuvPackedImage, YuvPlanarImage, YuvStandardMatrix};

use super::facts::CameraFormat;
use super::mjpeg::decode_jpeg;
use crate::limits::check_frame_size;
use crate::{Frame, YuvRange};

/// Rows that are unpacked at a time, so that they are still in the cache when they are converted.
const STRIP_ROWS: usize = 16;

/// How the pixels lie in a buffer and what their values mean.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) format: CameraFormat,
    pub(super) width_px: usize,
    pub(super) height_px: usize,
    /// Bytes from one row to the next: of the only plane, or of luma and of chroma.
    pub(super) row_bytes: [usize; 2],
    /// 2 if chroma is in memory of its own.
    pub(super) planes: usize,
    pub(super) matrix: YuvStandardMatrix,
    pub(super) range: YuvRange,
}

impl Layout {
    /// Checks the size and that rows are as long as their pixels.
    pub(super) fn check(&self) -> Result<(), String> {
        check_frame_size(self.width_px, self.height_px).map_err(|error| error.to_string())?;
        let even = self.width_px.next_multiple_of(2);
        let least = match self.format {
            CameraFormat::Yuyv | CameraFormat::Uyvy => [2 * even, 0],
            CameraFormat::Nv12 => [self.width_px, even],
            CameraFormat::Rgb24 | CameraFormat::Bgr24 => [3 * self.width_px, 0],
            CameraFormat::Grey => [self.width_px, 0],
            CameraFormat::Mjpeg | CameraFormat::Jpeg => return Ok(()),
        };
        let most = 1 << 24;
        for (got, least) in self.row_bytes.into_iter().zip(least) {
            if got < least || got > most {
                return Err(format!("{} rows: expected {least}..={most} bytes, got {got}", self.format));
            }
        }
        Ok(())
    }

    /// Bytes of the planes. Rows are whole: `yuv` skips a last row without its padding and says nothing.
    fn plane_bytes(&self) -> [usize; 2] {
        let luma = self.row_bytes[0] * self.height_px;
        let chroma = self.row_bytes[1] * self.height_px.div_ceil(2);
        match (self.format, self.planes) {
            (CameraFormat::Nv12, 1) => [luma + chroma, 0],
            (CameraFormat::Nv12, _) => [luma, chroma],
            _ => [luma, 0],
        }
    }
}

/// Converts buffers; keeps its scratch. Luma below black counts as black.
#[derive(Debug, Default)]
pub(super) struct Converter {
    /// Luma, then the two chroma planes, of a strip.
    strip: Vec<u8>,
}

impl Converter {
    /// Converts the payload of a buffer, one slice per plane, into `frame`: pixels and size. The error says why it is
    /// no whole frame.
    pub(super) fn convert(
        &mut self,
        layout: &Layout,
        planes: [&[u8]; 2],
        frame: &mut Frame,
    ) -> Result<(), String> {
        let [first, second] = planes;
        if matches!(layout.format, CameraFormat::Mjpeg | CameraFormat::Jpeg) {
            return decode_jpeg(first, frame);
        }
        for (plane, least) in planes.into_iter().zip(layout.plane_bytes()) {
            if plane.len() < least {
                return Err(format!("expected {least} bytes, got {}", plane.len()));
            }
        }
        frame.resize(layout.width_px, layout.height_px);
        let rgb = &mut frame.pixels[..];
        match layout.format {
            CameraFormat::Yuyv => self.rgb_from_packed(layout, first, rgb, yuv::yuyv422_to_yuv422),
            CameraFormat::Uyvy => self.rgb_from_packed(layout, first, rgb, yuv::uyvy422_to_yuv422),
            CameraFormat::Nv12 => rgb_from_nv12(layout, first, second, rgb),
            CameraFormat::Grey => rgb_from_grey(layout, first, rgb),
            CameraFormat::Rgb24 | CameraFormat::Bgr24 => rgb_from_colours(layout, first, rgb),
            CameraFormat::Mjpeg | CameraFormat::Jpeg => unreachable!("decoded above"),
        }
    }

    /// By way of planes: the direct conversion of `yuv` has 6 bits after the binary point, which brightens white by 2.
    fn rgb_from_packed(
        &mut self,
        layout: &Layout,
        packed: &[u8],
        rgb: &mut [u8],
        unpack: fn(&mut yuv::YuvPlanarImageMut<'_, u8>, &YuvPackedImage<'_, u8>) -> Result<(), yuv::YuvError>,
    ) -> Result<(), String> {
        let (width, row_bytes) = (layout.width_px, layout.row_bytes[0]);
        let half = width.div_ceil(2);
        self.strip.resize(STRIP_ROWS * (width + 2 * half), 0);
        for (index, rgb) in rgb.chunks_mut(STRIP_ROWS * 3 * width).enumerate() {
            let height = rgb.len() / (3 * width);
            let start = index * STRIP_ROWS * row_bytes;
            let (luma, chroma) = self.strip.split_at_mut(STRIP_ROWS * width);
            let (u, v) = chroma.split_at_mut(STRIP_ROWS * half);
            let sizes = (width as u32, height as u32);
            let packed = YuvPackedImage {
                yuy: &packed[start..start + height * row_bytes],
                yuy_stride: row_bytes as u32,
                width: sizes.0,
                height: sizes.1,
            };
            let mut planar = yuv::YuvPlanarImageMut {
                y_plane: yuv::BufferStoreMut::Borrowed(&mut luma[..height * width]),
                y_stride: sizes.0,
                u_plane: yuv::BufferStoreMut::Borrowed(&mut u[..height * half]),
                u_stride: half as u32,
                v_plane: yuv::BufferStoreMut::Borrowed(&mut v[..height * half]),
                v_stride: half as u32,
                width: sizes.0,
                height: sizes.1,
            };
            unpack(&mut planar, &packed).map_err(describe_error)?;
            let planar = YuvPlanarImage {
                y_plane: luma,
                y_stride: sizes.0,
                u_plane: u,
                u_stride: half as u32,
                v_plane: v,
                v_stride: half as u32,
                width: sizes.0,
                height: sizes.1,
            };
            yuv::yuv422_to_rgb(&planar, rgb, 3 * sizes.0, range_of(layout), layout.matrix)
                .map_err(describe_error)?;
        }
        Ok(())
    }
}

fn rgb_from_nv12(layout: &Layout, first: &[u8], second: &[u8], rgb: &mut [u8]) -> Result<(), String> {
    let (luma, behind) = first.split_at(layout.row_bytes[0] * layout.height_px);
    let chroma = if layout.planes == 1 { behind } else { second };
    let image = YuvBiPlanarImage {
        y_plane: luma,
        y_stride: layout.row_bytes[0] as u32,
        uv_plane: chroma,
        uv_stride: layout.row_bytes[1] as u32,
        width: layout.width_px as u32,
        height: layout.height_px as u32,
    };
    let mode = yuv::YuvConversionMode::Balanced;
    yuv::yuv_nv12_to_rgb(&image, rgb, 3 * image.width, range_of(layout), layout.matrix, mode)
        .map_err(describe_error)
}

fn rgb_from_grey(layout: &Layout, grey: &[u8], rgb: &mut [u8]) -> Result<(), String> {
    let image = YuvGrayImage {
        y_plane: grey,
        y_stride: layout.row_bytes[0] as u32,
        width: layout.width_px as u32,
        height: layout.height_px as u32,
    };
    yuv::yuv400_to_rgb(&image, rgb, 3 * image.width, range_of(layout), layout.matrix).map_err(describe_error)
}

fn rgb_from_colours(layout: &Layout, colours: &[u8], rgb: &mut [u8]) -> Result<(), String> {
    let row = 3 * layout.width_px;
    if layout.format == CameraFormat::Rgb24 {
        for (target, source) in rgb.chunks_exact_mut(row).zip(colours.chunks(layout.row_bytes[0])) {
            target.copy_from_slice(&source[..row]);
        }
    } else {
        let (width, height) = (layout.width_px as u32, layout.height_px as u32);
        yuv::bgr_to_rgb(colours, layout.row_bytes[0] as u32, rgb, row as u32, width, height)
            .map_err(describe_error)?;
    }
    if layout.range == YuvRange::Limited {
        let full: [u8; 256] =
            std::array::from_fn(|value| ((value as f64 - 16.0) * 255.0 / 219.0).round() as u8);
        rgb.iter_mut().for_each(|value| *value = full[usize::from(*value)]);
    }
    Ok(())
}

fn range_of(layout: &Layout) -> yuv::YuvRange {
    match layout.range {
        YuvRange::Limited => yuv::YuvRange::Limited,
        YuvRange::Full => yuv::YuvRange::Full,
    }
}

fn describe_error(error: yuv::YuvError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ITU-R BT.601-7 section 2.5, BT.709-6 item 3 and the inverses of their equations, in floating point.
    fn standard_rgb(yuv: [u8; 3], (kr, kb): (f64, f64), range: YuvRange) -> [f64; 3] {
        let (y, u, v) = match range {
            YuvRange::Limited => (
                (f64::from(yuv[0]) - 16.0) / 219.0,
                (f64::from(yuv[1]) - 128.0) / 224.0,
                (f64::from(yuv[2]) - 128.0) / 224.0,
            ),
            YuvRange::Full => (
                f64::from(yuv[0]) / 255.0,
                (f64::from(yuv[1]) - 128.0) / 255.0,
                (f64::from(yuv[2]) - 128.0) / 255.0,
            ),
        };
        let (red, blue) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
        let green = (y - kr * red - kb * blue) / (1.0 - kr - kb);
        [red, green, blue].map(|value| (value * 255.0).clamp(0.0, 255.0))
    }

    /// Every value there is, in an order without structure.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn layout(format: CameraFormat, width_px: usize, height_px: usize, padding: usize) -> Layout {
        let even = width_px.next_multiple_of(2);
        let row = match format {
            CameraFormat::Yuyv | CameraFormat::Uyvy => 2 * even,
            CameraFormat::Rgb24 | CameraFormat::Bgr24 => 3 * width_px,
            _ => even,
        };
        Layout {
            format,
            width_px,
            height_px,
            row_bytes: [row + padding; 2],
            planes: 1,
            matrix: YuvStandardMatrix::Bt601,
            range: YuvRange::Limited,
        }
    }

    /// Luma and chroma of a pixel, by the description of each format in the kernel's documentation.
    fn stored(layout: &Layout, bytes: &[u8], x: usize, y: usize) -> [u8; 3] {
        let row = &bytes[y * layout.row_bytes[0]..];
        let pair = x / 2 * 4;
        match layout.format {
            CameraFormat::Yuyv => [row[2 * x], row[pair + 1], row[pair + 3]],
            CameraFormat::Uyvy => [row[2 * x + 1], row[pair], row[pair + 2]],
            CameraFormat::Nv12 => {
                let chroma = &bytes[layout.height_px * layout.row_bytes[0]..];
                let at = y / 2 * layout.row_bytes[1] + x / 2 * 2;
                [row[x], chroma[at], chroma[at + 1]]
            }
            _ => [row[x], 128, 128],
        }
    }

    #[test]
    fn yuv_is_converted_as_the_standards_say() {
        let standards =
            [(YuvStandardMatrix::Bt601, (0.299, 0.114)), (YuvStandardMatrix::Bt709, (0.2126, 0.0722))];
        let formats = [CameraFormat::Yuyv, CameraFormat::Uyvy, CameraFormat::Nv12, CameraFormat::Grey];
        let mut converter = Converter::default();
        let mut frame = Frame::new();
        let sizes = [(2, 2), (64, 33), (65, 18), (1, 1), (131, 40), (320, 17)];
        for (index, (width, height)) in sizes.into_iter().enumerate() {
            for format in formats {
                for (matrix, constants) in standards {
                    for range in [YuvRange::Limited, YuvRange::Full] {
                        let mut layout = layout(format, width, height, 6 * (index % 2));
                        (layout.matrix, layout.range) = (matrix, range);
                        layout.check().unwrap();
                        let bytes = noise(layout.row_bytes[0] * (height + height.div_ceil(2)));
                        converter.convert(&layout, [&bytes, &[]], &mut frame).unwrap();
                        assert_eq!((frame.width_px, frame.height_px), (width, height));
                        for (at, got) in frame.pixels.chunks_exact(3).enumerate() {
                            let yuv = stored(&layout, &bytes, at % width, at / width);
                            let black = if range == YuvRange::Limited { 16 } else { 0 };
                            let want = standard_rgb([yuv[0].max(black), yuv[1], yuv[2]], constants, range);
                            let worst = got
                                .iter()
                                .zip(want)
                                .map(|(got, want)| (f64::from(*got) - want.round()).abs());
                            let worst = worst.fold(0.0, f64::max);
                            assert!(worst <= 1.0, "{layout:?}: {yuv:?} at {at}: {got:?}, not {want:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn chroma_in_memory_of_its_own() {
        let whole = layout(CameraFormat::Nv12, 38, 10, 0);
        let bytes = noise(38 * 15);
        let split = Layout { planes: 2, ..whole.clone() };
        let (mut expected, mut frame) = (Frame::new(), Frame::new());
        let mut converter = Converter::default();
        converter.convert(&whole, [&bytes, &[]], &mut expected).unwrap();
        converter.convert(&split, [&bytes[..380], &bytes[380..]], &mut frame).unwrap();
        assert_eq!(frame.pixels, expected.pixels);
        assert!(converter.convert(&split, [&bytes[..380], &bytes[381..]], &mut frame).is_err());
    }

    #[test]
    fn colours_are_put_in_order_and_stretched() {
        let mut converter = Converter::default();
        let mut frame = Frame::new();
        for (format, order) in [(CameraFormat::Rgb24, [0, 1, 2]), (CameraFormat::Bgr24, [2, 1, 0])] {
            for range in [YuvRange::Full, YuvRange::Limited] {
                let layout = Layout { range, ..layout(format, 37, 5, 9) };
                let bytes = noise(layout.row_bytes[0] * 5);
                converter.convert(&layout, [&bytes, &[]], &mut frame).unwrap();
                for (at, got) in frame.pixels.chunks_exact(3).enumerate() {
                    let start = at / 37 * layout.row_bytes[0] + at % 37 * 3;
                    let want = order.map(|channel| {
                        let value = bytes[start + channel];
                        if range == YuvRange::Full {
                            value
                        } else {
                            // Studio range: 16 is black, 235 is white.
                            ((f64::from(value) - 16.0) / 219.0 * 255.0).round().clamp(0.0, 255.0) as u8
                        }
                    });
                    assert_eq!(got, want, "{format} {range:?} at {at}");
                }
            }
        }
    }

    #[test]
    fn a_short_buffer_is_no_frame() {
        let mut converter = Converter::default();
        let mut frame = Frame::new();
        for (format, bytes) in [
            (CameraFormat::Yuyv, 8 * 4),
            (CameraFormat::Uyvy, 8 * 4),
            (CameraFormat::Nv12, 4 * 6),
            (CameraFormat::Rgb24, 12 * 4),
            (CameraFormat::Bgr24, 12 * 4),
            (CameraFormat::Grey, 4 * 4),
        ] {
            let layout = layout(format, 4, 4, 0);
            let bytes = noise(bytes);
            converter.convert(&layout, [&bytes, &[]], &mut frame).unwrap();
            let error = converter.convert(&layout, [&bytes[1..], &[]], &mut frame);
            assert!(error.is_err(), "{format}");
            assert!(converter.convert(&layout, [&[], &[]], &mut frame).is_err(), "{format}");
        }
    }

    #[test]
    fn impossible_layouts_are_refused() {
        let fine = layout(CameraFormat::Yuyv, 640, 480, 0);
        assert!(fine.check().is_ok());
        assert!(Layout { row_bytes: [1279, 0], ..fine.clone() }.check().is_err());
        assert!(Layout { row_bytes: [usize::MAX, 0], ..fine.clone() }.check().is_err());
        assert!(Layout { width_px: 0, ..fine.clone() }.check().is_err());
        assert!(Layout { height_px: 1 << 20, ..fine }.check().is_err());
    }
}
