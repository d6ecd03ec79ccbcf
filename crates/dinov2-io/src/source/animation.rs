//! GIF, WebP and PNG animations: all frames, composed, with their times.
//!
//! A frame's time is the sum of the delays before it. Delays up to 10 ms count as 100 ms, as in browsers, because encoders
//! write 0 for an unset delay. Alpha is dropped, as for still images.

use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

#[cfg(feature = "image-formats")]
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
#[cfg(feature = "image-formats")]
use image::codecs::webp::WebPDecoder;
use image::error::ImageFormatHint;
use image::{AnimationDecoder, Delay, Frames, ImageDecoder, ImageError, ImageFormat, ImageResult, RgbaImage};

use super::still::{decoder_limits, supported_format};
use super::stream::Stream;
use crate::limits::check_frame_size;
use crate::{FormatError, Frame, SourceError};

/// Longest delay that counts as unset, and its replacement.
const LEAST_DELAY_NS: u64 = 10_000_000;
const USUAL_DELAY_NS: u64 = 100_000_000;

/// True for a GIF, WebP or PNG of several frames. False for unreadable files.
pub(crate) fn is_animated(mut file: impl BufRead + Seek) -> bool {
    let Ok(head) = file.fill_buf() else { return false };
    match supported_format(head) {
        Some(ImageFormat::Gif) => has_two_gif_images(&mut file).unwrap_or(false),
        Some(ImageFormat::Png) => has_two_png_frames(&mut file).unwrap_or(false),
        Some(ImageFormat::WebP) => has_two_webp_frames(&mut file).unwrap_or(false),
        _ => false,
    }
}

fn read<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Bytes of a colour table by the flags of the header before it.
fn gif_table_bytes(flags: u8) -> i64 {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

/// GIF89a specification, sections 17 to 27.
fn has_two_gif_images(file: &mut (impl BufRead + Seek)) -> io::Result<bool> {
    let header: [u8; 13] = read(file)?;
    file.seek_relative(gif_table_bytes(header[10]))?;
    let mut images = 0;
    loop {
        match read(file)? {
            [b'!'] => drop(read::<1>(file)?),
            [b','] => {
                images += 1;
                if images == 2 {
                    return Ok(true);
                }
                let descriptor: [u8; 9] = read(file)?;
                file.seek_relative(gif_table_bytes(descriptor[8]) + 1)?;
            }
            _ => return Ok(false),
        }
        // Blocks of at most 255 bytes follow, up to an empty one.
        loop {
            match read(file)? {
                [0] => break,
                [bytes] => file.seek_relative(bytes.into())?,
            }
        }
    }
}

/// An `acTL` chunk before the first `IDAT` (PNG specification, third edition, 11.3.6.1).
fn has_two_png_frames(file: &mut (impl BufRead + Seek)) -> io::Result<bool> {
    file.seek_relative(8)?;
    loop {
        let bytes = u32::from_be_bytes(read(file)?);
        match &read(file)? {
            b"acTL" => return Ok(u32::from_be_bytes(read(file)?) > 1),
            b"IDAT" | b"IEND" => return Ok(false),
            _ => drop(file.seek(SeekFrom::Current(i64::from(bytes) + 4))?),
        }
    }
}

/// Two `ANMF` chunks (WebP container specification).
fn has_two_webp_frames(file: &mut (impl BufRead + Seek)) -> io::Result<bool> {
    file.seek_relative(12)?;
    let mut frames = 0;
    loop {
        let name: [u8; 4] = read(file)?;
        let bytes = u32::from_le_bytes(read(file)?);
        match &name {
            b"ANMF" if frames == 1 => return Ok(true),
            b"ANMF" => frames += 1,
            b"VP8 " | b"VP8L" => return Ok(false),
            _ => {}
        }
        file.seek(SeekFrom::Current(i64::from(bytes) + i64::from(bytes % 2)))?;
    }
}

/// An opened animation. Its decoder cannot be moved, so it runs in a thread of its own, one frame ahead.
pub(crate) struct AnimationStream {
    frames: Receiver<Result<(RgbaImage, Delay), FormatError>>,
    path: PathBuf,
    time_ns: u64,
}

impl AnimationStream {
    pub(crate) fn new(encoded: Vec<u8>, path: &Path) -> Result<Self, SourceError> {
        let format = supported_format(&encoded).unwrap_or(ImageFormat::Gif);
        let (sender, frames) = sync_channel(1);
        let decode = move || {
            let animation = match open(format, encoded) {
                Ok(animation) => animation,
                // Fails only if the receiver was dropped.
                Err(error) => return drop(sender.send(Err(error))),
            };
            for frame in animation {
                let frame = frame.map(|frame| (frame.delay(), frame.into_buffer()));
                let frame = frame.map(|(delay, picture)| (picture, delay)).map_err(FormatError::from);
                let is_last = frame.is_err();
                if sender.send(frame).is_err() || is_last {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("animation".into())
            .spawn(decode)
            .map_err(SourceError::read(path.display()))?;
        Ok(Self { frames, path: path.to_path_buf(), time_ns: 0 })
    }
}

fn open(format: ImageFormat, encoded: Vec<u8>) -> Result<Frames<'static>, FormatError> {
    let bytes = Cursor::new(encoded);
    Ok(match format {
        ImageFormat::Png => limited(PngDecoder::with_limits(bytes, decoder_limits()))?.apng()?.into_frames(),
        #[cfg(feature = "image-formats")]
        ImageFormat::WebP => limited(WebPDecoder::new(bytes))?.into_frames(),
        #[cfg(feature = "image-formats")]
        ImageFormat::Gif => limited(GifDecoder::new(bytes))?.into_frames(),
        format => return Err(ImageError::Unsupported(ImageFormatHint::Exact(format).into()).into()),
    })
}

fn limited<D: ImageDecoder>(decoder: ImageResult<D>) -> Result<D, FormatError> {
    let mut decoder = decoder?;
    let (width, height) = decoder.dimensions();
    check_frame_size(width as usize, height as usize)?;
    decoder.set_limits(decoder_limits())?;
    Ok(decoder)
}

impl Stream for AnimationStream {
    fn read_into(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        // The sender is gone at the end.
        let Ok(next) = self.frames.recv() else { return Ok(false) };
        let (picture, delay) = next.map_err(SourceError::format(self.path.display()))?;
        frame.resize(picture.width() as usize, picture.height() as usize);
        let (rgb, rgba) = (frame.pixels.as_chunks_mut::<3>().0, picture.as_raw().as_chunks::<4>().0);
        for (rgb, [red, green, blue, _]) in rgb.iter_mut().zip(rgba) {
            *rgb = [*red, *green, *blue];
        }
        frame.path.get_or_insert_default().clone_from(&self.path);
        frame.capture_ns = Some(self.time_ns);
        let (over, under) = delay.numer_denom_ms();
        let delay_ns = u64::from(over) * 1_000_000 / u64::from(under.max(1));
        self.time_ns += if delay_ns > LEAST_DELAY_NS { delay_ns } else { USUAL_DELAY_NS };
        Ok(true)
    }
}
