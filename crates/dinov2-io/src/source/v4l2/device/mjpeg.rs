//! Decodes JPEGs of cameras to RGB. An incomplete JPEG is an error.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::Frame;
use crate::jpeg::with_huffman_tables;
use crate::limits::{MAX_JPEG_PIXELS_PER_BYTE, check_frame_size};

/// Marker codes of ITU-T T.81, table B.1.
const END: u8 = 0xD9;
const SCAN: u8 = 0xDA;

/// From this width on, a row of blocks takes more bytes than the decoder reads ahead.
const LEAST_STRICT_WIDTH_PX: usize = 320;

/// Decodes one JPEG into `frame`: pixels and size, which may be another one than the camera promised. The error says
/// why it is no whole image.
///
/// The decoder fills in what is missing before the end marker. It reports what is missing at the end of the bytes, so
/// the marker is found here and not shown to it.
pub(super) fn decode_jpeg(payload: &[u8], frame: &mut Frame) -> Result<(), String> {
    let payload = &*with_huffman_tables(payload).map_err(|error| error.to_string())?;
    let end = end_of_scan(payload).ok_or("JPEG without its end")?;
    let options = DecoderOptions::new_fast().jpeg_set_out_colorspace(ColorSpace::RGB).set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&payload[..end]), options);
    let describe_error = |error| format!("JPEG: {error:?}");
    decoder.decode_headers().map_err(describe_error)?;
    let (width_px, height_px) = decoder.dimensions().ok_or("JPEG without a size")?;
    let pixels = check_frame_size(width_px, height_px).map_err(|error| error.to_string())?;
    if pixels / MAX_JPEG_PIXELS_PER_BYTE > payload.len() {
        return Err(format!("JPEG of {width_px}x{height_px} in {} bytes", payload.len()));
    }
    if width_px < LEAST_STRICT_WIDTH_PX {
        decoder = JpegDecoder::new_with_options(ZCursor::new(&payload[..end + 2]), options);
        decoder.decode_headers().map_err(describe_error)?;
    }
    frame.resize(width_px, height_px);
    decoder.decode_into(&mut frame.pixels).map_err(describe_error)
}

/// Where the end marker is: behind the last scan, maybe with padding behind it.
fn end_of_scan(payload: &[u8]) -> Option<usize> {
    let markers = payload.windows(2).rposition(|pair| pair[0] == 0xFF && matches!(pair[1], END | SCAN));
    markers.filter(|at| payload[at + 1] == END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JpegEncoder, decode_still};
    use dinov2_core::ImageView;

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A detailed image of `width` x `height`: the photograph, tiled.
    fn encoded(width: usize, height: usize, quality: u8) -> Vec<u8> {
        let mut photo = Frame::new();
        decode_still(&fixture("photo.png"), &mut photo).unwrap();
        let at = |x: usize, y: usize| (y % photo.height_px * photo.width_px + x % photo.width_px) * 3;
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| photo.pixels[at(x, y)..][..3].to_vec())
            .collect();
        let image = ImageView::new(&pixels, width, height).unwrap();
        JpegEncoder::new(quality).encode(image).unwrap().to_vec()
    }

    #[test]
    fn decodes_what_pil_decodes() {
        let (mut frame, mut expected) = (Frame::new(), Frame::new());
        for name in ["jpeg_420", "jpeg_444", "jpeg_grey", "jpeg_progressive"] {
            let mut payload = fixture(&format!("{name}.jpg"));
            decode_still(&fixture(&format!("{name}.png")), &mut expected).unwrap();
            for padding in [0, 1, 4096] {
                payload.resize(payload.len() + padding, 0);
                decode_jpeg(&payload, &mut frame).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!((frame.width_px, frame.height_px), (151, 113), "{name}");
                let far = frame.pixels.iter().zip(&expected.pixels).filter(|(a, b)| a.abs_diff(**b) > 4);
                assert!(far.count() * 100 < frame.pixels.len(), "{name}");
            }
        }
    }

    /// Of the encoder here, which writes the typical tables in segments of one table each.
    #[test]
    fn decodes_without_huffman_tables() {
        let mut whole = encoded(640, 480, 80);
        let mut expected = Frame::new();
        decode_jpeg(&whole, &mut expected).unwrap();
        let mut stripped = 0;
        while let Some(start) = whole.windows(2).position(|pair| pair == [0xFF, 0xC4]) {
            let length = u16::from_be_bytes([whole[start + 2], whole[start + 3]]);
            whole.drain(start..start + 2 + usize::from(length));
            stripped += 1;
        }
        assert!(stripped > 0);
        let mut frame = Frame::new();
        for padding in [0, 1, 4096] {
            whole.resize(whole.len() + padding, 0);
            decode_jpeg(&whole, &mut frame).unwrap();
            assert_eq!(frame.pixels, expected.pixels);
        }
    }

    #[test]
    fn decodes_odd_and_flat_images() {
        let mut frame = Frame::new();
        for (width, height) in [(1, 1), (17, 9), (319, 241), (320, 240), (321, 31), (640, 480), (333, 1)] {
            for quality in [10, 95] {
                decode_jpeg(&encoded(width, height, quality), &mut frame)
                    .unwrap_or_else(|error| panic!("{width}x{height} at {quality}: {error}"));
                assert_eq!((frame.width_px, frame.height_px), (width, height));
            }
            let black = vec![0; width * height * 3];
            let image = ImageView::new(&black, width, height).unwrap();
            let payload = JpegEncoder::new(50).encode(image).unwrap().to_vec();
            decode_jpeg(&payload, &mut frame).unwrap_or_else(|error| panic!("{width}x{height}: {error}"));
            assert!(frame.pixels.iter().all(|value| *value <= 1));
        }
    }

    #[test]
    fn a_cut_off_jpeg_is_no_frame() {
        let payload = encoded(640, 480, 80);
        let mut frame = Frame::new();
        for cut in 1..64 {
            let mut short = payload[..payload.len() * cut / 64].to_vec();
            assert!(decode_jpeg(&short, &mut frame).is_err(), "{cut}/64");
            // Cameras whose cable lost the middle still send the end marker, and drivers pad with zeros.
            short.extend([0xFF, END]);
            assert!(decode_jpeg(&short, &mut frame).is_err(), "{cut}/64 and the end marker");
            short.resize(payload.len(), 0);
            assert!(decode_jpeg(&short, &mut frame).is_err(), "{cut}/64, the end marker and padding");
        }
        assert!(decode_jpeg(&payload[..payload.len() - 1], &mut frame).is_err());
        assert!(decode_jpeg(&[], &mut frame).is_err());
        assert!(decode_jpeg(&[0; 4096], &mut frame).is_err());
    }

    #[test]
    fn a_hole_is_noticed_and_no_hole_is_fatal() {
        let payload = encoded(640, 480, 80);
        let (mut frame, mut noticed) = (Frame::new(), 0);
        let holes = 40;
        for hole in 0..holes {
            // Packets of USB carry up to 3 KiB.
            let start = 1024 + (payload.len() - 1024 - 3072) * hole / holes;
            let mut broken = payload.clone();
            broken.drain(start..start + 3072);
            noticed += usize::from(decode_jpeg(&broken, &mut frame).is_err());
        }
        assert!(noticed >= holes * 9 / 10, "{noticed} of {holes}");
    }

    #[test]
    fn sizes_are_capped() {
        let mut payload = encoded(64, 64, 50);
        let header = payload.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        payload[header + 5..header + 9].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF]);
        let mut frame = Frame::new();
        assert!(decode_jpeg(&payload, &mut frame).is_err());
        assert_eq!(frame.pixels.capacity(), 0);
    }
}
