//! All other videos, decoded by an `ffmpeg` child process (4.2 or later).
//!
//! ffmpeg writes the frames that the file has, at the times that it has, as raw RGB in NUT: of the containers that can be
//! piped, the one that keeps times exactly (Matroska rounds to milliseconds, y4m has none). It is run without a
//! constant frame rate and with times in nanoseconds. Times are the file's own ([`Frame::capture_ns`] is ffprobe's
//! `pts_time`): they need not start at 0. Where a file's clock goes back, because recordings were put one behind the other,
//! times go on from the last frame before. Frames before time 0 move the whole video so that it starts at 0.
//!
//! A frame carries no size in NUT, and sizes change within a video (a phone that is turned). So the first column of each
//! frame is sent as a stream of its own: its length is the height. ffmpeg before 4.4 scales all frames to the first's size.
//!
//! ffmpeg itself applies rotation, colour matrix and range. Whatever it reports as an error becomes one after the last
//! frame: data is missing. `ffprobe`, where there is one, adds the number of frames and of streams; nothing depends on it.

mod complaints;
mod nut;
mod probe;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use self::complaints::Complaints;
use self::probe::Facts;
use crate::limits::{MAX_PIXELS, MAX_SIDE_PX, check_frame_size};
use crate::{FormatError, Frame, SourceError};

/// Streams of the NUT that ffmpeg writes.
const COLUMNS: usize = 0;
const FRAMES: usize = 1;

/// From the first video stream that is no cover picture to a stream of first columns and one of frames. In `setpts`,
/// variable 0 is the sum of the steps by which the clock went back.
const FILTERS: &str = concat!(
    "[0:V:0]setpts=st(0\\,ld(0)+if(lt(PTS\\,PREV_INPTS)\\,PREV_INPTS-PTS\\,0))*0+PTS+ld(0),",
    "format=rgb24,split[frames][all];[all]crop=1:ih:0:0[columns]"
);

/// Options that pass every frame through at its own size: ffmpeg from 5.1, from 4.4, and before.
const PASS_THROUGH: [&[&str]; 3] = [
    &["-fps_mode", "passthrough", "-noautoscale"],
    &["-vsync", "passthrough", "-noautoscale"],
    &["-vsync", "passthrough"],
];

/// A running `ffmpeg`, killed when dropped.
pub(crate) struct FfmpegReader {
    program: PathBuf,
    path: PathBuf,
    running: Running,
    /// Position in [`PASS_THROUGH`].
    dialect: usize,
    facts: Facts,
    /// Heights in bytes of a column, of frames to come.
    columns: VecDeque<usize>,
    column: Vec<u8>,
    last: Option<nut::Packet>,
    last_time_ns: i64,
    note: Option<String>,
    frames: u64,
    done: bool,
}

struct Running {
    child: Child,
    stream: nut::Reader<ChildStdout>,
    complaints: Option<JoinHandle<Complaints>>,
}

/// The path as ffmpeg's `file:` protocol, so that neither a leading dash nor a colon in it means anything.
fn file_url(path: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(path);
    url
}

impl Running {
    fn start(program: &Path, path: &Path, dialect: usize) -> Result<Self, SourceError> {
        let mut child = Command::new(program)
            .args(["-hide_banner", "-loglevel", "repeat+level+warning", "-nostdin", "-copyts", "-i"])
            .arg(file_url(path))
            .args(["-filter_complex", FILTERS, "-map", "[columns]", "-map", "[frames]"])
            .args(PASS_THROUGH[dialect])
            .args(["-enc_time_base", "1:1000000000", "-c:v", "rawvideo", "-f", "nut", "pipe:1"])
            .env("AV_LOG_FORCE_NOCOLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| spawn_error(program, path, error))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let complaints = Some(std::thread::spawn(move || Complaints::read(stderr)));
        Ok(Self { child, stream: nut::Reader::new(stdout), complaints })
    }
}

fn spawn_error(program: &Path, path: &Path, error: io::Error) -> SourceError {
    let (program, path) = (program.display().to_string(), path.display().to_string());
    match error.kind() {
        io::ErrorKind::NotFound => SourceError::FfmpegMissing { program, path },
        _ => SourceError::Program { program, source: error, path },
    }
}

impl FfmpegReader {
    /// Starts `program` on the first video stream of `path`.
    pub(crate) fn open(program: &Path, path: &Path) -> Result<Self, SourceError> {
        let running = Running::start(program, path, 0)?;
        let facts = probe::probe(&program.with_file_name("ffprobe"), path);
        let note = (facts.streams > 1).then(|| {
            format!("{}: has {} video streams, of which the first is read", path.display(), facts.streams)
        });
        Ok(Self {
            program: program.to_path_buf(),
            path: path.to_path_buf(),
            running,
            dialect: 0,
            facts,
            columns: VecDeque::new(),
            column: Vec::new(),
            last: None,
            last_time_ns: 0,
            note,
            frames: 0,
            done: false,
        })
    }

    /// Frames that the file claims to have.
    pub(crate) fn len_hint(&self) -> Option<usize> {
        self.facts.frames
    }

    /// A note if one of several streams is read, once.
    pub(crate) fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }

    /// Reads the next frame into `frame`: pixels, size, capture time and path. False at the end of the video.
    pub(crate) fn read_into(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        while !self.done {
            match self.read_nut(frame) {
                Ok(true) => {
                    frame.path.get_or_insert_default().clone_from(&self.path);
                    self.frames += 1;
                    return Ok(true);
                }
                Ok(false) => self.finish(None)?,
                Err(error) => self.finish(Some(error))?,
            }
        }
        Ok(false)
    }

    /// Waits for the child, whose messages explain a broken stream. If this version of ffmpeg does not know the options, it is
    /// started again with those of an older version.
    fn finish(&mut self, error: Option<FormatError>) -> Result<(), SourceError> {
        self.done = true;
        let path = self.path.display().to_string();
        if error.is_some() {
            let _ = self.running.child.kill();
        }
        let status = self.running.child.wait().map_err(SourceError::read(&path))?;
        let complaints =
            self.running.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if self.frames == 0 && complaints.unknown_option && self.dialect + 1 < PASS_THROUGH.len() {
            self.dialect += 1;
            self.running = Running::start(&self.program, &self.path, self.dialect)?;
            self.done = false;
            return Ok(());
        }
        if complaints.no_video {
            return Err(SourceError::NoVideo { path });
        }
        let frames = self.frames;
        match (complaints.reason(), error) {
            (Some(message), _) if frames == 0 => Err(SourceError::Ffmpeg { message, path }),
            (Some(message), _) => Err(SourceError::Damaged { frames, message, path }),
            (None, Some(source)) => Err(SourceError::Format { source, path }),
            (None, None) if !status.success() => {
                Err(SourceError::Ffmpeg { message: status.to_string(), path })
            }
            (None, None) if frames == 0 => Err(SourceError::Ffmpeg { message: "no frames".into(), path }),
            (None, None) => Ok(()),
        }
    }

    fn read_nut(&mut self, frame: &mut Frame) -> Result<bool, FormatError> {
        while let Some(packet) = self.running.stream.next_packet()? {
            let most = if packet.stream == COLUMNS { 3 * MAX_SIDE_PX } else { 3 * MAX_PIXELS };
            if packet.bytes > most {
                let (expected, got) = (format!("at most {most} bytes"), packet.bytes.to_string());
                return Err(FormatError::Field { what: "frame size", expected, got });
            }
            match packet.stream {
                COLUMNS => {
                    self.running.stream.read_data(packet, &mut self.column)?;
                    self.columns.push_back(packet.bytes);
                }
                FRAMES => {
                    self.read_frame(packet, frame)?;
                    return Ok(true);
                }
                other => {
                    let (expected, got) = ("0 or 1".into(), other.to_string());
                    return Err(FormatError::Field { what: "NUT stream", expected, got });
                }
            }
        }
        Ok(false)
    }

    fn read_frame(&mut self, packet: nut::Packet, frame: &mut Frame) -> Result<(), FormatError> {
        let column = self.columns.pop_front().unwrap_or(0);
        let (height_px, width_px) = (column / 3, packet.bytes.checked_div(column).unwrap_or(0));
        check_frame_size(width_px, height_px)?;
        if width_px * height_px * 3 != packet.bytes {
            let (expected, got) = (format!("whole rows of {height_px}"), format!("{} bytes", packet.bytes));
            return Err(FormatError::Field { what: "video frame", expected, got });
        }
        self.running.stream.read_data(packet, &mut frame.pixels)?;
        (frame.width_px, frame.height_px) = (width_px, height_px);
        // NUT has no equal times: ffmpeg moves a frame that has the time of the last one by one tick.
        let is_same_time = self.last.is_some_and(|last| packet.pts == last.pts.saturating_add(1));
        if !is_same_time {
            self.last_time_ns = packet.time_ns;
        }
        self.last = Some(packet);
        frame.capture_ns = u64::try_from(self.last_time_ns).ok();
        Ok(())
    }
}

impl Drop for FfmpegReader {
    fn drop(&mut self) {
        let _ = self.running.child.kill();
        let _ = self.running.child.wait();
    }
}
