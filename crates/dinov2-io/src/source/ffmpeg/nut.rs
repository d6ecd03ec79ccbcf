//! NUT, ffmpeg's own streaming container: packets with exact times. Format: `nut.txt` of the NUT specification
//! (version 4; ffmpeg writes 3), "High Level Structure" and "Frames".
//!
//! Reads the output of ffmpeg from a pipe. Checksums are not verified, because a pipe does not change bytes. The reader does
//! not resynchronise: an unexpected byte is an error.

use std::io::{BufReader, Read};

use crate::FormatError;
use crate::source::read::read_frame_bytes;

const FILE_ID: &[u8] = b"nut/multimedia container\0";
const MAIN: u64 = 0x4E4D_7A56_1F5F_04AD;
const STREAM: u64 = 0x4E53_1140_5BF2_F9DB;
const SYNC_POINT: u64 = 0x4E4B_E4AD_EECA_4569;
const INFO: u64 = 0x4E49_AB68_B596_BA78;
const INDEX: u64 = 0x4E58_DD67_2F23_E64E;

/// Largest header packet; ffmpeg's have some hundred bytes, and metadata of the input may be among them.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// A header packet longer than this has a checksum of its length behind it.
const CHECKED_LENGTH: usize = 4_096;
/// Streams that are read at most.
const MAX_STREAMS: usize = 4;

const END_OF_STREAM: u64 = 1 << 1;
const CODED_PTS: u64 = 1 << 3;
const STREAM_ID: u64 = 1 << 4;
const SIZE_MSB: u64 = 1 << 5;
const CHECKSUM: u64 = 1 << 6;
const RESERVED: u64 = 1 << 7;
const SIDE_DATA: u64 = 1 << 8;
const HEADER_INDEX: u64 = 1 << 10;
const MATCH_TIME: u64 = 1 << 11;
const CODED: u64 = 1 << 12;
const INVALID: u64 = 1 << 13;

/// Meaning of a frame code.
#[derive(Clone, Copy, Debug, Default)]
struct FrameCode {
    flags: u64,
    stream: u64,
    size_step: u64,
    size: u64,
    pts_step: i64,
    reserved: u64,
    header: u64,
}

/// Seconds per tick.
#[derive(Clone, Copy, Debug, Default)]
struct TimeBase {
    over: u64,
    under: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct StreamState {
    time_base: TimeBase,
    pts_shift: u32,
    last_pts: i64,
}

/// A packet whose data has not been read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Number of the stream, from 0.
    pub(crate) stream: usize,
    /// Time in ticks of the stream.
    pub(crate) pts: i64,
    /// The same in nanoseconds.
    pub(crate) time_ns: i64,
    /// Bytes of data.
    pub(crate) bytes: usize,
    /// The first bytes of the data, which are not stored: index into the main header's list.
    elided: usize,
}

/// Reads packets one after the other.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    stream: BufReader<R>,
    started: bool,
    codes: Vec<FrameCode>,
    time_bases: Vec<TimeBase>,
    elided: Vec<Vec<u8>>,
    streams: Vec<StreamState>,
}

fn field(what: &'static str, expected: &str, got: impl ToString) -> FormatError {
    FormatError::Field { what, expected: expected.into(), got: got.to_string() }
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(stream: R) -> Self {
        let stream = BufReader::with_capacity(1 << 16, stream);
        let (codes, time_bases, elided, streams) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { stream, started: false, codes, time_bases, elided, streams }
    }

    /// The next packet; its data must be taken by [`Self::read_data`] before the one after it. `None` at the end.
    pub(crate) fn next_packet(&mut self) -> Result<Option<Packet>, FormatError> {
        if !self.started {
            if !self.read_file_id()? {
                return Ok(None);
            }
            self.started = true;
        }
        loop {
            let mut code = [0];
            if self.stream.read(&mut code)? == 0 {
                return Ok(None);
            }
            if code[0] == b'N' {
                self.read_header()?;
                continue;
            }
            let packet = self.read_frame_header(code[0])?;
            if packet.bytes > 0 {
                return Ok(Some(packet));
            }
        }
    }

    /// Reads the data of `packet` into `data`.
    pub(crate) fn read_data(&mut self, packet: Packet, data: &mut Vec<u8>) -> Result<(), FormatError> {
        let start = &self.elided[packet.elided];
        let stored = packet.bytes - start.len();
        if start.is_empty() {
            let got = read_frame_bytes(&mut self.stream, data, stored)?;
            return if got < stored { Err(cut(packet.bytes, got)) } else { Ok(()) };
        }
        data.clear();
        data.extend_from_slice(start);
        let got = self.stream.by_ref().take(stored as u64).read_to_end(data)?;
        if got < stored { Err(cut(packet.bytes, got)) } else { Ok(()) }
    }

    fn read_file_id(&mut self) -> Result<bool, FormatError> {
        let mut id = Vec::new();
        self.stream.by_ref().take(FILE_ID.len() as u64).read_to_end(&mut id)?;
        if id.is_empty() {
            return Ok(false);
        }
        if id != FILE_ID {
            let got = String::from_utf8_lossy(&id).into_owned();
            return Err(field("video stream", "NUT as ffmpeg writes it", format!("{got:?}")));
        }
        Ok(true)
    }

    /// A header packet, behind its first byte, `N`.
    fn read_header(&mut self) -> Result<(), FormatError> {
        let mut start = [b'N', 0, 0, 0, 0, 0, 0, 0];
        self.stream.read_exact(&mut start[1..])?;
        let len = usize::try_from(read_number(&mut self.stream)?).unwrap_or(usize::MAX);
        if !(4..=MAX_HEADER_BYTES).contains(&len) {
            return Err(field("NUT header", &format!("4..={MAX_HEADER_BYTES} bytes"), len));
        }
        if len > CHECKED_LENGTH {
            self.stream.read_exact(&mut [0; 4])?;
        }
        let mut header = Vec::new();
        self.stream.by_ref().take(len as u64).read_to_end(&mut header)?;
        if header.len() < len {
            return Err(cut(len, header.len()));
        }
        let body = &mut &header[..len - 4];
        match u64::from_be_bytes(start) {
            MAIN => self.parse_main(body),
            STREAM => self.parse_stream(body),
            SYNC_POINT => self.parse_sync_point(body),
            INFO | INDEX => Ok(()),
            other => Err(field("NUT start code", "a known one", format!("{other:#x}"))),
        }
    }

    fn parse_main(&mut self, body: &mut &[u8]) -> Result<(), FormatError> {
        let version = read_number(body)?;
        if !(3..=4).contains(&version) {
            return Err(field("NUT version", "3 or 4", version));
        }
        if version > 3 {
            read_number(body)?;
        }
        let streams = usize::try_from(read_number(body)?).unwrap_or(usize::MAX);
        if streams > MAX_STREAMS {
            return Err(field("NUT streams", &format!("at most {MAX_STREAMS}"), streams));
        }
        self.streams.resize(streams, StreamState::default());
        read_number(body)?;
        self.time_bases.clear();
        for _ in 0..read_number(body)? {
            let base = TimeBase { over: read_number(body)?, under: read_number(body)? };
            if base.over == 0 || base.under == 0 {
                return Err(field("NUT time base", "positive numbers", format!("{base:?}")));
            }
            self.time_bases.push(base);
        }
        self.codes = parse_frame_codes(body)?;
        self.elided = vec![Vec::new()];
        for _ in 0..read_number(body)? {
            let len = usize::try_from(read_number(body)?).unwrap_or(usize::MAX);
            let Some((bytes, rest)) = body.split_at_checked(len) else {
                return Err(cut(len, body.len()));
            };
            self.elided.push(bytes.to_vec());
            *body = rest;
        }
        Ok(())
    }

    /// Number, class, codec, time base and how times are stored; what follows is known from how ffmpeg was asked.
    fn parse_stream(&mut self, body: &mut &[u8]) -> Result<(), FormatError> {
        let (stream, _class) = (read_number(body)?, read_number(body)?);
        let codec_bytes = usize::try_from(read_number(body)?).unwrap_or(usize::MAX);
        *body = body.get(codec_bytes..).ok_or_else(|| cut(codec_bytes, body.len()))?;
        let time_base = usize::try_from(read_number(body)?).unwrap_or(usize::MAX);
        let shift = read_number(body)?;
        let time_base = self.time_bases.get(time_base).copied();
        let state = usize::try_from(stream).ok().and_then(|stream| self.streams.get_mut(stream));
        let (Some(time_base), Some(state), 0..=16) = (time_base, state, shift) else {
            return Err(field("NUT stream header", "numbers of the main header", stream));
        };
        *state = StreamState { time_base, pts_shift: shift as u32, last_pts: 0 };
        Ok(())
    }

    /// Sets the time from which those of the next frames are counted.
    fn parse_sync_point(&mut self, body: &mut &[u8]) -> Result<(), FormatError> {
        let coded = read_number(body)?;
        let bases = self.time_bases.len().max(1) as u64;
        let Some(base) = self.time_bases.get((coded % bases) as usize).copied() else {
            return Err(field("NUT sync point", "a main header before it", "none"));
        };
        let ticks = i128::from(coded / bases) * i128::from(base.over);
        for stream in &mut self.streams {
            let TimeBase { over, under } = stream.time_base;
            if over > 0 {
                let pts = (ticks * i128::from(under)).div_euclid(i128::from(over) * i128::from(base.under));
                stream.last_pts = i64::try_from(pts).unwrap_or(i64::MAX);
            }
        }
        Ok(())
    }

    fn read_frame_header(&mut self, code: u8) -> Result<Packet, FormatError> {
        let Some(code) = self.codes.get(usize::from(code)).copied() else {
            return Err(field("NUT frame", "a main header before it", "none"));
        };
        let mut flags = code.flags;
        if flags & CODED != 0 {
            flags ^= read_number(&mut self.stream)?;
        }
        if flags & (INVALID | SIDE_DATA) != 0 {
            return Err(field("NUT frame", "one without side data", format!("flags {flags:#x}")));
        }
        let mut read = |flag, otherwise| match flags & flag {
            0 => Ok(otherwise),
            _ => read_number(&mut self.stream),
        };
        let stream = usize::try_from(read(STREAM_ID, code.stream)?).unwrap_or(usize::MAX);
        let coded_pts = read(CODED_PTS, 0)?;
        let size = code.size.saturating_add(code.size_step.saturating_mul(read(SIZE_MSB, 0)?));
        read(MATCH_TIME, 0)?;
        let elided = usize::try_from(read(HEADER_INDEX, code.header)?).unwrap_or(usize::MAX);
        for _ in 0..read(RESERVED, code.reserved)? {
            read_number(&mut self.stream)?;
        }
        if flags & CHECKSUM != 0 {
            self.stream.read_exact(&mut [0; 4])?;
        }
        let Some(state) = self.streams.get_mut(stream).filter(|state| state.time_base.over > 0) else {
            return Err(field("NUT frame", "a stream with a header", stream));
        };
        let pts = match flags & CODED_PTS {
            0 => state.last_pts.saturating_add(code.pts_step),
            _ => state.decode_pts(coded_pts),
        };
        state.last_pts = pts;
        // Ended streams have an empty frame, of which nothing may be elided.
        let bytes = if flags & END_OF_STREAM != 0 { 0 } else { usize::try_from(size).unwrap_or(usize::MAX) };
        let elided = if bytes == 0 { 0 } else { elided };
        match self.elided.get(elided) {
            Some(start) if start.len() <= bytes => {}
            _ => return Err(field("NUT frame", "a start of the main header's list", elided)),
        }
        Ok(Packet { stream, pts, time_ns: state.time_base.nanoseconds(pts), bytes, elided })
    }
}

impl TimeBase {
    /// `pts` ticks in nanoseconds, rounded to the nearest.
    fn nanoseconds(self, pts: i64) -> i64 {
        let under = i128::from(self.under);
        let time = (i128::from(pts) * i128::from(self.over) * 1_000_000_000 + under / 2).div_euclid(under);
        i64::try_from(time).unwrap_or(i64::MAX)
    }
}

impl StreamState {
    /// Small numbers are the low bits of a time near the last one; larger ones are the time itself.
    fn decode_pts(&self, coded: u64) -> i64 {
        let span = 1i64 << self.pts_shift;
        match i64::try_from(coded).unwrap_or(i64::MAX) {
            coded if coded < span => {
                let least = self.last_pts.saturating_sub((span - 1) / 2);
                least.saturating_add(coded.wrapping_sub(least) & (span - 1))
            }
            coded => coded - span,
        }
    }
}

/// The table of 256 frame codes, stored as runs.
fn parse_frame_codes(body: &mut &[u8]) -> Result<Vec<FrameCode>, FormatError> {
    let mut codes = Vec::with_capacity(256);
    let mut code = FrameCode { size_step: 1, ..FrameCode::default() };
    while codes.len() < 256 {
        code.flags = read_number(body)?;
        let fields = read_number(body)?;
        let mut read = |index: u64, otherwise| if fields > index { read_number(body) } else { Ok(otherwise) };
        code.pts_step = if fields > 0 { signed(read(0, 0)?) } else { code.pts_step };
        code.size_step = read(1, code.size_step)?;
        code.stream = read(2, code.stream)?;
        code.size = read(3, 0)?;
        code.reserved = read(4, 0)?;
        let run = read(5, code.size_step.saturating_sub(code.size))?;
        read(6, 0)?;
        code.header = read(7, code.header)?;
        for index in 8..fields {
            read(index, 0)?;
        }
        if run == 0 {
            return Err(field("NUT frame codes", "runs of at least one", run));
        }
        for _ in 0..run.min(257) {
            // The code that starts headers is no frame's and takes no place in a run.
            if codes.len() == usize::from(b'N') {
                codes.push(FrameCode { flags: INVALID, ..FrameCode::default() });
            }
            if codes.len() < 256 {
                codes.push(code);
                code.size = code.size.saturating_add(1);
            }
        }
    }
    Ok(codes)
}

fn cut(expected: usize, got: usize) -> FormatError {
    FormatError::Truncated { what: "video frame", expected, got }
}

/// Seven bits per byte, the highest first; the eighth says that more follow.
fn read_number(stream: &mut impl Read) -> Result<u64, FormatError> {
    let mut number = 0u64;
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        if number >> 57 != 0 {
            return Err(field("NUT number", "at most 64 bits", "more"));
        }
        number = number << 7 | u64::from(byte[0] & 0x7F);
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
    }
}

/// 0, 1, 2, 3, 4 … stand for 0, 1, -1, 2, -2 …
fn signed(coded: u64) -> i64 {
    let half = (coded / 2) as i64;
    if coded % 2 == 1 { half + 1 } else { -half }
}
