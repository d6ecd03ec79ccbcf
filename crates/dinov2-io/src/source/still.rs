//! Image files: PNG, JPEG, WebP, BMP, GIF, TIFF, PNM, QOI, and by `heif` HEIC and AVIF.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::animation::{AnimationStream, is_animated};
use super::heif;
use super::mjpeg::{Piece, Splitter};
use crate::jpeg::with_huffman_tables;
use crate::limits::{
    MAX_DECODER_BYTES, MAX_IMAGE_FILE_BYTES, MAX_JPEG_PIXELS_PER_BYTE, MAX_SIDE_PX, check_frame_size,
};
use crate::{FormatError, Frame, SourceError};

/// Decodes image files one after the other, reusing the buffer of encoded bytes.
#[derive(Debug, Default)]
pub(crate) struct StillDecoder {
    encoded: Vec<u8>,
}

impl StillDecoder {
    /// Reads and decodes one file into `frame`: pixels, size and path. Of an animation the first frame.
    pub(crate) fn read_into(&mut self, path: &Path, frame: &mut Frame) -> Result<(), SourceError> {
        self.read(path)?;
        self.decode_into(path, frame)
    }

    /// Reads one file. An animation is returned as a stream, and [`Self::decode_into`] must not be called then.
    pub(crate) fn load(&mut self, path: &Path) -> Result<Option<AnimationStream>, SourceError> {
        self.read(path)?;
        if !is_animated(Cursor::new(&self.encoded)) {
            return Ok(None);
        }
        AnimationStream::new(std::mem::take(&mut self.encoded), path).map(Some)
    }

    /// Decodes the file that was read from `path`.
    pub(crate) fn decode_into(&mut self, path: &Path, frame: &mut Frame) -> Result<(), SourceError> {
        match heif::is_photograph(&self.encoded) {
            true => heif::decode(&self.encoded, path, frame)?,
            false => decode_still(&self.encoded, frame).map_err(SourceError::format(path.display()))?,
        }
        frame.path = Some(path.to_path_buf());
        Ok(())
    }

    fn read(&mut self, path: &Path) -> Result<(), SourceError> {
        let file = File::open(path).map_err(SourceError::read(path.display()))?;
        self.encoded.clear();
        let most = MAX_IMAGE_FILE_BYTES + 1;
        file.take(most).read_to_end(&mut self.encoded).map_err(SourceError::read(path.display()))?;
        Ok(())
    }
}

/// Reads and decodes an image file into `frame`: pixels, size and path. Of an animation the first frame.
///
/// # Errors
/// As [`decode_still`], and if the file cannot be read, or is HEIC or AVIF and libheif's program is missing.
pub fn read_still(path: &Path, frame: &mut Frame) -> Result<(), SourceError> {
    StillDecoder::default().read_into(path, frame)
}

/// Decodes one encoded image into `frame`: pixels and size. The EXIF orientation is applied; alpha is dropped, 16-bit
/// values are scaled to 8 bits, grey becomes RGB. Of an animation the first frame. HEIC and AVIF are decoded by
/// [`read_still`] only, as a program does it.
///
/// # Errors
/// Bytes that are no image of a known format, are cut short, or are larger than [`crate::limits`] allow.
pub fn decode_still(encoded: &[u8], frame: &mut Frame) -> Result<(), FormatError> {
    decode_as(format_of_whole(encoded)?, encoded, frame)
}

/// Decodes one encoded image as its file has it: channels, depth, no orientation applied.
///
/// # Errors
/// As [`decode_still`].
#[cfg(feature = "mcap")]
pub(crate) fn decode_samples(encoded: &[u8]) -> Result<DynamicImage, FormatError> {
    let format = format_of_whole(encoded)?;
    Ok(DynamicImage::from_decoder(open_decoder(format, &complete(format, encoded)?)?)?)
}

/// The format of an image that is neither too large nor cut off.
fn format_of_whole(encoded: &[u8]) -> Result<ImageFormat, FormatError> {
    if encoded.len() as u64 > MAX_IMAGE_FILE_BYTES {
        return Err(FormatError::Field {
            what: "image file",
            expected: format!("at most {MAX_IMAGE_FILE_BYTES} bytes"),
            got: "more".into(),
        });
    }
    if heif::is_photograph(encoded) {
        return Err(FormatError::Field {
            what: "image",
            expected: "PNG, JPEG, WebP, BMP, GIF, TIFF, PNM or QOI".into(),
            got: "HEIC or AVIF, which is read from files only".into(),
        });
    }
    let format = supported_format(encoded).ok_or_else(not_an_image)?;
    if format == ImageFormat::Jpeg {
        check_whole_jpeg(encoded)?;
    }
    Ok(format)
}

/// The format of an image by its first bytes, if it is one of those that are decoded here.
pub(crate) fn supported_format(head: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Qoi, Tiff, WebP};
    let format = image::guess_format(head).ok()?;
    matches!(format, Bmp | Gif | Jpeg | Png | Pnm | Qoi | Tiff | WebP).then_some(format)
}

/// Limits of an image decoder.
pub(crate) fn decoder_limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE_PX as u32);
    limits.max_image_height = Some(MAX_SIDE_PX as u32);
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    limits
}

/// [`decode_still`] for bytes of a known format; a cut-off JPEG is not noticed.
pub(crate) fn decode_as(format: ImageFormat, encoded: &[u8], frame: &mut Frame) -> Result<(), FormatError> {
    decode(format, encoded, frame, |decoder| decoder.orientation().unwrap_or(Orientation::NoTransforms))
}

/// [`decode_as`] without the EXIF orientation.
pub(crate) fn decode_upright(
    format: ImageFormat,
    encoded: &[u8],
    frame: &mut Frame,
) -> Result<(), FormatError> {
    decode(format, encoded, frame, |_| Orientation::NoTransforms)
}

fn decode(
    format: ImageFormat,
    encoded: &[u8],
    frame: &mut Frame,
    orientation: impl FnOnce(&mut dyn ImageDecoder) -> Orientation,
) -> Result<(), FormatError> {
    let encoded = &*complete(format, encoded)?;
    let mut decoder = open_decoder(format, encoded)?;
    let (width, height) = decoder.dimensions();
    let orientation = orientation(&mut decoder);
    if decoder.color_type() == ColorType::Rgb8 && orientation == Orientation::NoTransforms {
        frame.resize(width as usize, height as usize);
        decoder.read_image(&mut frame.pixels)?;
        return Ok(());
    }
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    let rgb = image.into_rgb8();
    (frame.width_px, frame.height_px) = (rgb.width() as usize, rgb.height() as usize);
    frame.pixels = rgb.into_raw();
    Ok(())
}

/// Input of an image decoder.
fn complete(format: ImageFormat, encoded: &[u8]) -> Result<Cow<'_, [u8]>, FormatError> {
    if format == ImageFormat::Jpeg { with_huffman_tables(encoded) } else { Ok(Cow::Borrowed(encoded)) }
}

/// A decoder within the limits, its header read and checked.
fn open_decoder(format: ImageFormat, encoded: &[u8]) -> Result<impl ImageDecoder + '_, FormatError> {
    let mut reader = ImageReader::with_format(Cursor::new(encoded), format);
    reader.limits(decoder_limits());
    let decoder = reader.into_decoder()?;
    let (width_px, height_px) = decoder.dimensions();
    let pixels = check_frame_size(width_px as usize, height_px as usize)?;
    if format == ImageFormat::Jpeg && pixels / MAX_JPEG_PIXELS_PER_BYTE > encoded.len() {
        return Err(FormatError::Field {
            what: "JPEG size",
            expected: format!("at most {MAX_JPEG_PIXELS_PER_BYTE} pixels per byte of the file"),
            got: format!("{width_px}x{height_px} in {} bytes", encoded.len()),
        });
    }
    Ok(decoder)
}

fn not_an_image() -> FormatError {
    FormatError::Field {
        what: "image",
        expected: "PNG, JPEG, WebP, BMP, GIF, TIFF, PNM, QOI, HEIC or AVIF".into(),
        got: "something else".into(),
    }
}

/// Detects cut-off JPEG files, because the decoder paints missing data grey without an error.
fn check_whole_jpeg(encoded: &[u8]) -> Result<(), FormatError> {
    match Splitter::new(encoded).next_jpeg(&mut Vec::new())? {
        Piece::Jpeg => Ok(()),
        Piece::Corrupt(reason) => Err(FormatError::Field {
            what: "JPEG",
            expected: "a whole image".into(),
            got: format!("a broken one ({reason})"),
        }),
        Piece::End => Err(not_an_image()),
    }
}
