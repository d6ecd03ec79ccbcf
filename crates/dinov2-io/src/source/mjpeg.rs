//! MJPEG: consecutive JPEG images, with or without other bytes between them (multipart boundaries, padding).
//!
//! ```
//! use dinov2_io::mjpeg::{Piece, Splitter};
//!
//! let mut splitter = Splitter::new(&b"--boundary\r\n\r\n"[..]);
//! let mut jpeg = Vec::new();
//! assert!(matches!(splitter.next_jpeg(&mut jpeg).unwrap(), Piece::End));
//! ```

use std::io::{self, BufRead, BufReader, Read};

use crate::limits::MAX_MJPEG_FRAME_BYTES;

/// What [`Splitter::next_jpeg`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A complete JPEG, including start and end marker.
    Jpeg,
    /// The start of a JPEG that is not followed by valid segments. The search for the next image continues from here.
    Corrupt(&'static str),
    /// The end of the stream.
    End,
}

/// Marker bytes after 0xFF: ITU-T T.81, table B.1.
mod marker {
    pub(super) const START: u8 = 0xD8;
    pub(super) const END: u8 = 0xD9;
    pub(super) const SCAN: u8 = 0xDA;
    /// Markers without a segment: temporary use in arithmetic coding, and the eight restarts.
    pub(super) fn has_no_segment(marker: u8) -> bool {
        marker == 0x01 || (0xD0..=0xD7).contains(&marker)
    }
}

/// Cuts a stream into JPEG images by walking their segments, so that a thumbnail inside a segment does not end an
/// image. Does not decode.
#[derive(Debug)]
pub struct Splitter<R> {
    stream: BufReader<R>,
    /// The start marker of the next image was consumed already.
    at_image: bool,
}

impl<R: Read> Splitter<R> {
    /// Splits `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream: BufReader::with_capacity(1 << 16, stream), at_image: false }
    }

    /// Replaces the content of `jpeg` by the next image.
    ///
    /// # Errors
    /// If reading fails; the next call then returns the end.
    pub fn next_jpeg(&mut self, jpeg: &mut Vec<u8>) -> io::Result<Piece> {
        jpeg.clear();
        if !self.at_image && !self.seek_image()? {
            return Ok(Piece::End);
        }
        self.at_image = false;
        jpeg.extend_from_slice(&[0xFF, marker::START]);
        match self.copy_segments(jpeg) {
            Ok(()) => Ok(Piece::Jpeg),
            Err(Fault::Corrupt(reason)) => Ok(Piece::Corrupt(reason)),
            Err(Fault::Io(error)) => Err(error),
        }
    }

    /// Skips to the position after the next start marker. A start marker only counts if another marker follows.
    fn seek_image(&mut self) -> io::Result<bool> {
        let mut last = [0; 2];
        loop {
            let available = self.stream.fill_buf()?;
            if available.is_empty() {
                return Ok(false);
            }
            for (offset, byte) in available.iter().enumerate() {
                if last == [0xFF, marker::START] && *byte == 0xFF {
                    self.stream.consume(offset);
                    return Ok(true);
                }
                last = [last[1], *byte];
            }
            let consumed = available.len();
            self.stream.consume(consumed);
        }
    }

    /// Copies from after the start marker to after the end marker.
    fn copy_segments(&mut self, jpeg: &mut Vec<u8>) -> Result<(), Fault> {
        let mut scanned = false;
        let mut marker = self.next_marker(jpeg)?;
        loop {
            match marker {
                marker::END if scanned => return Ok(()),
                marker::END => return Err(Fault::Corrupt("no image data before the end marker")),
                marker::START => {
                    self.at_image = true;
                    return Err(Fault::Corrupt("the next image starts before the end marker"));
                }
                0x00 => return Err(Fault::Corrupt("no marker where one must be")),
                _ if marker::has_no_segment(marker) => {}
                _ => self.copy_segment(jpeg)?,
            }
            scanned |= marker == marker::SCAN;
            marker = if marker == marker::SCAN { self.copy_scan(jpeg)? } else { self.next_marker(jpeg)? };
        }
    }

    /// The segment behind a marker: two bytes of length, which count themselves, and the rest.
    fn copy_segment(&mut self, jpeg: &mut Vec<u8>) -> Result<(), Fault> {
        let length = u16::from_be_bytes([self.next_byte(jpeg)?, self.next_byte(jpeg)?]);
        match usize::from(length).checked_sub(2) {
            Some(rest) => self.copy(jpeg, rest),
            None => Err(Fault::Corrupt("segment shorter than its own length field")),
        }
    }

    /// The byte after 0xFF and its fill bytes; all are copied.
    fn next_marker(&mut self, jpeg: &mut Vec<u8>) -> Result<u8, Fault> {
        if self.next_byte(jpeg)? != 0xFF {
            return Err(Fault::Corrupt("no marker where one must be"));
        }
        loop {
            let byte = self.next_byte(jpeg)?;
            if byte != 0xFF {
                return Ok(byte);
            }
        }
    }

    /// Entropy-coded data and the marker that ends them, which is returned: 0xFF 0x00 is a stuffed byte, and restart
    /// markers belong to the data.
    fn copy_scan(&mut self, jpeg: &mut Vec<u8>) -> Result<u8, Fault> {
        loop {
            let available = fill(&mut self.stream)?;
            match available.iter().position(|byte| *byte == 0xFF) {
                None => {
                    let len = available.len();
                    self.copy(jpeg, len)?;
                }
                Some(len) => {
                    self.copy(jpeg, len)?;
                    let marker = self.next_marker(jpeg)?;
                    if marker != 0x00 && !marker::has_no_segment(marker) {
                        return Ok(marker);
                    }
                }
            }
        }
    }

    fn next_byte(&mut self, jpeg: &mut Vec<u8>) -> Result<u8, Fault> {
        let byte = fill(&mut self.stream)?[0];
        self.copy(jpeg, 1)?;
        Ok(byte)
    }

    fn copy(&mut self, jpeg: &mut Vec<u8>, mut len: usize) -> Result<(), Fault> {
        if jpeg.len() + len > MAX_MJPEG_FRAME_BYTES {
            return Err(Fault::Corrupt("image larger than the limit of 64 MiB"));
        }
        while len > 0 {
            let available = fill(&mut self.stream)?;
            let taken = len.min(available.len());
            jpeg.extend_from_slice(&available[..taken]);
            self.stream.consume(taken);
            len -= taken;
        }
        Ok(())
    }
}

enum Fault {
    Corrupt(&'static str),
    Io(io::Error),
}

/// At least one byte, or the fault that the stream has ended.
fn fill<R: Read>(stream: &mut BufReader<R>) -> Result<&[u8], Fault> {
    let available = stream.fill_buf().map_err(Fault::Io)?;
    if available.is_empty() { Err(Fault::Corrupt("stream ends within the image")) } else { Ok(available) }
}
