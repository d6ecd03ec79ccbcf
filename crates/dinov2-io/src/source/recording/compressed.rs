//! Encoded images and the meaning of their field `format`.
//!
//! `compressed_image_transport` writes `ENCODING; CODEC compressed TARGET`: the encoding of the raw image, and the one that it
//! was converted to before it was encoded. Without a target it was encoded as it was. Others write `jpeg`, `png` or nothing.

use image::DynamicImage;

use super::bayer::{Mosaic, byte_of_16_bits};
use super::chunk::field;
use crate::source::still::{decode_samples, decode_still, supported_format};
use crate::{FormatError, Frame};

/// Most characters of a text from outside that a message repeats.
const QUOTED_CHARS: usize = 60;

/// Meaning of the pixels of the decoded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// A picture, used unchanged.
    Picture,
    /// A picture whose red and blue `compressed_image_transport` would exchange.
    DoubtfulOrder,
    /// Grey that is one colour per pixel.
    Mosaic(Mosaic),
    /// Colours, which need three channels in the file; luma and chroma are not colours.
    ThreeChannels,
}

/// Decodes an image file into `frame`: pixels and size. The remark is for people.
///
/// # Errors
/// If the image is malformed, or its pixels are not those of a colour or grey camera.
pub(super) fn decode(format: &str, data: &[u8], frame: &mut Frame) -> Result<Option<String>, FormatError> {
    let content = parse(format)?;
    if supported_format(data).is_none() {
        return Err(field("compressed image", "JPEG or PNG".into(), format!("format {}", quoted(format))));
    }
    match content {
        Content::Picture => decode_still(data, frame)?,
        Content::DoubtfulOrder => {
            decode_still(data, frame)?;
            let format = quoted(format);
            return Ok(Some(format!(
                "format {format} does not say `compressed bgr8`: red and blue are taken as the image files have them"
            )));
        }
        Content::Mosaic(mosaic) => demosaic(mosaic, format, data, frame)?,
        Content::ThreeChannels => {
            let channels = decode_samples(data)?.color().channel_count();
            if channels < 3 {
                return Err(field("compressed image", "3 channels".into(), of_channels(channels, format)));
            }
            decode_still(data, frame)?;
        }
    }
    Ok(None)
}

fn demosaic(mosaic: Mosaic, format: &str, data: &[u8], frame: &mut Frame) -> Result<(), FormatError> {
    let samples = decode_samples(data)?;
    let size_px = (samples.width() as usize, samples.height() as usize);
    frame.resize(size_px.0, size_px.1);
    match &samples {
        DynamicImage::ImageLuma8(grey) => {
            let at = |row, column| u32::from(grey.as_raw()[row * size_px.0 + column]);
            mosaic.rgb(size_px, at, |value| value as u8, &mut frame.pixels)
        }
        DynamicImage::ImageLuma16(grey) => {
            let at = |row, column| u32::from(grey.as_raw()[row * size_px.0 + column]);
            mosaic.rgb(size_px, at, byte_of_16_bits, &mut frame.pixels)
        }
        other => {
            let got = of_channels(other.color().channel_count(), format);
            Err(field("compressed image", "a mosaic of 1 channel".into(), got))
        }
    }
}

fn of_channels(channels: u8, format: &str) -> String {
    format!("{channels} with the format {}", quoted(format))
}

/// # Errors
/// If it is not a picture of a colour or grey camera.
fn parse(format: &str) -> Result<Content, FormatError> {
    let lower = format.to_ascii_lowercase();
    let (encoding, codec) = lower.split_once(';').unwrap_or((&lower, ""));
    let encoding = encoding.trim();
    if codec.contains("compresseddepth") || is_measurement(encoding) {
        let got = format!("format {} (depth or other measurements)", quoted(format));
        return Err(field("compressed image", "a colour or grey image".into(), got));
    }
    let target = codec.split_ascii_whitespace().skip_while(|word| *word != "compressed").nth(1);
    if encoding.starts_with("bayer_") {
        let (mosaic, _) = Mosaic::parse(encoding).ok_or_else(|| {
            let expected = "a mosaic of rggb, bggr, gbrg or grbg in 8 or 16 bits".into();
            field("compressed image", expected, format!("format {}", quoted(format)))
        })?;
        let is_picture = target.is_some_and(|target| !target.starts_with("bayer_"));
        return Ok(if is_picture { Content::Picture } else { Content::Mosaic(mosaic) });
    }
    let is_yuv = ["yuv", "uyvy", "yuyv", "nv"].iter().any(|start| encoding.starts_with(start));
    if is_yuv && target.is_none() {
        return Ok(Content::ThreeChannels);
    }
    let is_rgb = ["rgb", "bgr"].iter().any(|start| encoding.starts_with(start));
    let is_usual = target.is_some_and(|target| target.starts_with("bgr") || target.starts_with("mono"));
    Ok(if is_rgb && !codec.is_empty() && !is_usual { Content::DoubtfulOrder } else { Content::Picture })
}

/// OpenCV's names of plain numbers, such as `16UC1` and `32FC1`, those of 8 bits aside, which are pictures.
pub(super) fn is_measurement(encoding: &str) -> bool {
    let digits = encoding.bytes().take_while(u8::is_ascii_digit).count();
    let (bits, rest) = encoding.split_at(digits);
    let mut rest = rest.bytes().map(|byte| byte.to_ascii_lowercase());
    let kind = rest.next();
    let is_type = !bits.is_empty() && matches!(kind, Some(b'u' | b's' | b'f')) && rest.next() == Some(b'c');
    is_type && (bits != "8" || kind != Some(b'u'))
}

/// A text from outside, for a message.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(QUOTED_CHARS).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}
