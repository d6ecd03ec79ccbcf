//! YUV4MPEG2 (`.y4m`): uncompressed 8-bit video after a header line. Format: yuv4mpeg(5) of mjpegtools.
//!
//! The crate `y4m` (0.8) is not used. It reports a frame that is cut off as the regular end, takes 25 frames a second for a
//! missing rate, overflows on the product of width and height (`W8589934592 H2147483648`), reads headers with one call per
//! byte, and its errors do not say which field is wrong.
//!
//! ```
//! use dinov2_io::{Frame, y4m};
//!
//! let stream = b"YUV4MPEG2 W2 H1 F30:1 Cmono XCOLORRANGE=FULL\nFRAME\n\x00\xff";
//! let mut reader = y4m::Reader::new(&stream[..]).unwrap();
//! let mut frame = Frame::new();
//! assert!(reader.read_into(&mut frame).unwrap());
//! assert_eq!(frame.pixels, [0, 0, 0, 255, 255, 255]);
//! assert!(!reader.read_into(&mut frame).unwrap());
//! ```

use std::io::{BufReader, Read};

use super::read::{read_frame_bytes, read_line};
use super::yuv::{Chroma, YuvMatrix, YuvRange, rgb_from_grey, rgb_from_planes};
use crate::limits::check_frame_size;
use crate::{FormatError, Frame};

/// First bytes of a y4m stream.
pub const MAGIC: &[u8] = b"YUV4MPEG2";

/// Chroma layout, the `C` field of the header. All 8-bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChromaLayout {
    /// `C420`, `C420jpeg`, `C420mpeg2`, `C420paldv`: half the columns, half the rows. Where in the square of four a
    /// sample lies differs between them by half a pixel; this difference is ignored.
    C420,
    /// `C422`: half the columns.
    C422,
    /// `C444`: full.
    C444,
    /// `Cmono`: none.
    Mono,
}

/// The header line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Width in pixels.
    pub width_px: usize,
    /// Height in pixels.
    pub height_px: usize,
    /// Frames per second as a fraction with positive parts; `None` where unknown (`F0:0`) or absent.
    pub frame_rate: Option<(u32, u32)>,
    /// Chroma layout.
    pub chroma: ChromaLayout,
    /// Range of the values: full where the header says `XCOLORRANGE=FULL`.
    pub range: YuvRange,
}

impl Header {
    /// Bytes of one plane of chroma: `(columns, rows)`.
    fn chroma_plane(&self) -> (usize, usize) {
        match self.chroma {
            ChromaLayout::C420 => (self.width_px.div_ceil(2), self.height_px.div_ceil(2)),
            ChromaLayout::C422 => (self.width_px.div_ceil(2), self.height_px),
            ChromaLayout::C444 => (self.width_px, self.height_px),
            ChromaLayout::Mono => (0, 0),
        }
    }

    fn frame_bytes(&self) -> usize {
        let (columns, rows) = self.chroma_plane();
        self.width_px * self.height_px + 2 * columns * rows
    }

    /// Bytes of a frame in a stream whose frame lines have no fields.
    pub(crate) fn stored_bytes(&self) -> usize {
        b"FRAME\n".len() + self.frame_bytes()
    }

    fn parse(line: &[u8]) -> Result<Self, FormatError> {
        let line = String::from_utf8_lossy(line);
        let mut fields = line.split(' ').filter(|field| !field.is_empty());
        if fields.next().map(str::as_bytes) != Some(MAGIC) {
            return Err(field("y4m header", "YUV4MPEG2", line.chars().take(20).collect::<String>()));
        }
        let (mut width, mut height, mut frame_rate) = (None, None, None);
        let (mut chroma, mut range) = (ChromaLayout::C420, YuvRange::Limited);
        for word in fields {
            let mut chars = word.chars();
            let tag = chars.next();
            let value = chars.as_str();
            match tag {
                Some('W') => width = Some(parse_side("y4m width", value)?),
                Some('H') => height = Some(parse_side("y4m height", value)?),
                Some('F') => frame_rate = parse_rate(value)?,
                Some('C') => chroma = parse_chroma(value)?,
                Some('X') if value.eq_ignore_ascii_case("COLORRANGE=FULL") => range = YuvRange::Full,
                _ => {}
            }
        }
        let missing = |what| move || field(what, "a positive number", "none".into());
        let width_px = width.ok_or_else(missing("y4m width"))?;
        let height_px = height.ok_or_else(missing("y4m height"))?;
        check_frame_size(width_px, height_px)?;
        Ok(Self { width_px, height_px, frame_rate, chroma, range })
    }
}

fn field(what: &'static str, expected: &str, got: String) -> FormatError {
    FormatError::Field { what, expected: expected.to_string(), got: format!("{got:?}") }
}

fn parse_side(what: &'static str, value: &str) -> Result<usize, FormatError> {
    value.parse().map_err(|_| field(what, "a positive number", value.to_string()))
}

fn parse_rate(value: &str) -> Result<Option<(u32, u32)>, FormatError> {
    let parsed =
        value.split_once(':').and_then(|(over, under)| Some((over.parse().ok()?, under.parse().ok()?)));
    let (over, under): (u32, u32) =
        parsed.ok_or_else(|| field("y4m frame rate", "NUMBER:NUMBER", value.to_string()))?;
    Ok((over > 0 && under > 0).then_some((over, under)))
}

fn parse_chroma(value: &str) -> Result<ChromaLayout, FormatError> {
    match value {
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Ok(ChromaLayout::C420),
        "422" => Ok(ChromaLayout::C422),
        "444" => Ok(ChromaLayout::C444),
        "mono" => Ok(ChromaLayout::Mono),
        _ => Err(field(
            "y4m chroma",
            "8-bit 420, 420jpeg, 420mpeg2, 420paldv, 422, 444 or mono",
            value.to_string(),
        )),
    }
}

/// Reads frames out of a y4m stream.
#[derive(Debug)]
pub struct Reader<R> {
    stream: BufReader<R>,
    header: Header,
    frames: u64,
    line: Vec<u8>,
    planes: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If the header is missing, too long or invalid, or the format is not 8-bit.
    pub fn new(stream: R) -> Result<Self, FormatError> {
        let mut stream = BufReader::with_capacity(1 << 16, stream);
        let mut line = Vec::new();
        if !read_line(&mut stream, "y4m header", &mut line)? {
            return Err(FormatError::Truncated { what: "y4m header", expected: MAGIC.len(), got: 0 });
        }
        let header = Header::parse(&line)?;
        Ok(Self { stream, header, frames: 0, line, planes: Vec::new() })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the next frame into `frame`: pixels, size and capture time. False at the end of the stream.
    ///
    /// # Errors
    /// If the stream ends within a frame, or a frame header is invalid.
    pub fn read_into(&mut self, frame: &mut Frame) -> Result<bool, FormatError> {
        if !read_line(&mut self.stream, "y4m frame header", &mut self.line)? {
            return Ok(false);
        }
        if self.line.split(|byte| *byte == b' ').next() != Some(b"FRAME") {
            let got = String::from_utf8_lossy(&self.line).chars().take(20).collect();
            return Err(field("y4m frame header", "FRAME", got));
        }
        let expected = self.header.frame_bytes();
        let got = read_frame_bytes(&mut self.stream, &mut self.planes, expected)?;
        if got < expected {
            return Err(FormatError::Truncated { what: "y4m frame", expected, got });
        }
        frame.resize(self.header.width_px, self.header.height_px);
        self.convert(&mut frame.pixels);
        frame.capture_ns =
            self.header.frame_rate.map(|(over, under)| frame_time_ns(self.frames, over, under));
        self.frames += 1;
        Ok(true)
    }

    fn convert(&self, rgb: &mut [u8]) {
        let Header { width_px, height_px, chroma, range, .. } = self.header;
        let (luma, rest) = self.planes.split_at(width_px * height_px);
        let (shift_x, shift_y) = match chroma {
            ChromaLayout::Mono => return rgb_from_grey(luma, rgb, range),
            ChromaLayout::C420 => (1, 1),
            ChromaLayout::C422 => (1, 0),
            ChromaLayout::C444 => (0, 0),
        };
        let (columns, rows) = self.header.chroma_plane();
        let (u, v) = rest.split_at(columns * rows);
        let chroma = Chroma { u, v, step: 1, row_bytes: columns, shift_x, shift_y };
        rgb_from_planes(YuvMatrix::bt601(range), width_px, luma, chroma, rgb);
    }
}

/// Time of frame `index` at `over / under` frames per second.
fn frame_time_ns(index: u64, over: u32, under: u32) -> u64 {
    let time = u128::from(index) * u128::from(under) * 1_000_000_000 / u128::from(over.max(1));
    u64::try_from(time).unwrap_or(u64::MAX)
}
