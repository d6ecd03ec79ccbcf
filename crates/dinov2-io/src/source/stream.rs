//! The trait [`Stream`] for inputs of many frames, and y4m, MJPEG and raw streams.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use dinov2_files::chain;
use image::ImageFormat;

use super::ffmpeg::FfmpegReader;
use super::mjpeg::{Piece, Splitter};
use super::pattern::Pattern;
use super::raw::RawReader;
use super::still::decode_as;
use super::{SourceOptions, y4m};
use crate::{FormatError, Frame, SourceError};

/// Any readable bytes.
pub(crate) type Bytes = Box<dyn Read + Send>;

/// An opened input of many frames.
pub(crate) trait Stream: Send {
    /// Fills pixels, size and path, and the capture time where known. False at the end.
    fn read_into(&mut self, frame: &mut Frame) -> Result<bool, SourceError>;

    /// Number of frames, if it is cheap to find.
    fn len_hint(&self) -> Option<usize> {
        None
    }

    /// A note for the user, once.
    fn take_note(&mut self) -> Option<String> {
        None
    }
}

/// A y4m file or pipe.
pub(crate) struct Y4mStream {
    reader: y4m::Reader<Bytes>,
    name: String,
    path: Option<PathBuf>,
    len_hint: Option<usize>,
}

impl Y4mStream {
    fn new(bytes: Bytes, name: impl ToString) -> Result<Self, SourceError> {
        let name = name.to_string();
        let reader = y4m::Reader::new(bytes).map_err(SourceError::format(&name))?;
        Ok(Self { reader, name, path: None, len_hint: None })
    }

    pub(crate) fn of_file(file: File, path: &Path) -> Result<Self, SourceError> {
        let file_bytes = file.metadata().map(|metadata| metadata.len()).ok();
        let mut stream = Self::new(Box::new(file), path.display())?;
        stream.path = Some(path.to_path_buf());
        let frame_bytes = stream.reader.header().stored_bytes() as u64;
        stream.len_hint = file_bytes.and_then(|bytes| usize::try_from(bytes / frame_bytes).ok());
        Ok(stream)
    }
}

impl Stream for Y4mStream {
    fn read_into(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        frame.path.clone_from(&self.path);
        self.reader.read_into(frame).map_err(SourceError::format(&self.name))
    }

    fn len_hint(&self) -> Option<usize> {
        self.len_hint
    }
}

/// An MJPEG file or pipe. Corrupt frames are skipped and noted once, at the end.
pub(crate) struct MjpegStream {
    splitter: Splitter<Bytes>,
    name: String,
    path: Option<PathBuf>,
    jpeg: Vec<u8>,
    frames: usize,
    skipped: usize,
    first_fault: String,
    note: Option<String>,
}

impl MjpegStream {
    pub(crate) fn new(bytes: Bytes, name: impl ToString, path: Option<&Path>) -> Self {
        Self {
            splitter: Splitter::new(bytes),
            name: name.to_string(),
            path: path.map(Path::to_path_buf),
            jpeg: Vec::new(),
            frames: 0,
            skipped: 0,
            first_fault: String::new(),
            note: None,
        }
    }

    fn skip(&mut self, reason: impl ToString) {
        if self.skipped == 0 {
            self.first_fault = format!("frame {}: {}", self.frames, reason.to_string());
        }
        self.skipped += 1;
    }

    fn finish(&mut self) -> Result<bool, SourceError> {
        let skipped = self.skipped;
        if self.frames == 0 {
            let got = match skipped {
                0 => "none".to_string(),
                _ => format!("{skipped} corrupt ones, {}", self.first_fault),
            };
            let expected = "at least one JPEG image".into();
            let source = FormatError::Field { what: "MJPEG stream", expected, got };
            return Err(SourceError::Format { source, path: self.name.clone() });
        }
        if skipped > 0 {
            let (name, first) = (&self.name, &self.first_fault);
            self.note = Some(format!("{name}: skipped {skipped} corrupt frames, the first after {first}"));
        }
        Ok(false)
    }
}

impl Stream for MjpegStream {
    fn read_into(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        loop {
            match self.splitter.next_jpeg(&mut self.jpeg).map_err(SourceError::read(&self.name))? {
                Piece::End => return self.finish(),
                Piece::Corrupt(reason) => self.skip(reason),
                Piece::Jpeg => match decode_as(ImageFormat::Jpeg, &self.jpeg, frame) {
                    Err(error) => self.skip(chain(&error)),
                    Ok(()) => {
                        self.frames += 1;
                        frame.path.clone_from(&self.path);
                        return Ok(true);
                    }
                },
            }
        }
    }

    fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }
}

struct RawStream {
    reader: RawReader<Bytes>,
    name: String,
}

impl Stream for RawStream {
    fn read_into(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        frame.path = None;
        self.reader.read_into(frame).map_err(SourceError::format(&self.name))
    }
}

impl Stream for FfmpegReader {
    fn read_into(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        FfmpegReader::read_into(self, frame)
    }

    fn len_hint(&self) -> Option<usize> {
        FfmpegReader::len_hint(self)
    }

    fn take_note(&mut self) -> Option<String> {
        FfmpegReader::take_note(self)
    }
}

impl Stream for Pattern {
    fn read_into(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        frame.path = None;
        Ok(Pattern::read_into(self, frame))
    }

    fn len_hint(&self) -> Option<usize> {
        self.frames()
    }
}

/// Opens bytes without a file name. y4m and JPEG are recognised by content; other streams need a raw format.
pub(crate) fn open_pipe(
    mut bytes: Bytes,
    name: &str,
    options: &SourceOptions,
) -> Result<Box<dyn Stream>, SourceError> {
    let mut head = Vec::new();
    let most = y4m::MAGIC.len() as u64;
    bytes.by_ref().take(most).read_to_end(&mut head).map_err(SourceError::read(name))?;
    let start = head.clone();
    let bytes: Bytes = Box::new(Cursor::new(head).chain(bytes));
    if start == y4m::MAGIC {
        return Ok(Box::new(Y4mStream::new(bytes, name)?));
    }
    if let Some(format) = options.raw {
        let reader = RawReader::new(bytes, format).map_err(SourceError::format(name))?;
        return Ok(Box::new(RawStream { reader, name: name.to_string() }));
    }
    if start.starts_with(&[0xFF, 0xD8, 0xFF]) {
        return Ok(Box::new(MjpegStream::new(bytes, name, None)));
    }
    Err(SourceError::Input {
        expected: format!("y4m or JPEG on {name}, or --raw-size WIDTHxHEIGHT for frames without a header"),
        got: if start.is_empty() { "nothing".into() } else { "something else".into() },
    })
}
