//! Any other video, decoded by an `ffmpeg` child process.
//!
//! It is asked for PPM images on its standard output: each tells its own size, so nothing has to be probed first, and
//! ffmpeg itself applies rotation, colour matrix and range. `ffprobe`, where there is one, adds the frame rate and the
//! number of frames; nothing depends on it.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use super::read::{read_frame_bytes, read_line};
use super::y4m::frame_time_ns;
use crate::limits::{MAX_HEADER_LINE_BYTES, check_frame_size};
use crate::{FormatError, Frame, SourceError};

/// A running `ffmpeg`, killed when dropped.
pub(crate) struct FfmpegReader {
    child: Child,
    stream: BufReader<ChildStdout>,
    last_complaint: Option<JoinHandle<String>>,
    path: Option<PathBuf>,
    line: Vec<u8>,
    facts: Facts,
    frames: u64,
    done: bool,
}

/// What `ffprobe` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    frame_rate: Option<(u32, u32)>,
    frames: Option<usize>,
}

/// The path as ffmpeg's `file:` protocol, so that neither a leading dash nor a colon in it means anything.
fn file_url(path: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(path);
    url
}

impl FfmpegReader {
    /// Starts `program` on the first video stream of `path`.
    pub(crate) fn open(program: &Path, path: &Path) -> Result<Self, SourceError> {
        let mut child = Command::new(program)
            .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-i"])
            .arg(file_url(path))
            .args(["-map", "0:V:0", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "pipe:1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Self::spawn_error(program, path, error))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        Ok(Self {
            child,
            stream: BufReader::with_capacity(1 << 16, stdout),
            last_complaint: Some(std::thread::spawn(move || last_line(stderr))),
            path: Some(path.to_path_buf()),
            line: Vec::new(),
            facts: probe(&program.with_file_name("ffprobe"), path),
            frames: 0,
            done: false,
        })
    }

    fn spawn_error(program: &Path, path: &Path, error: io::Error) -> SourceError {
        let (program, path) = (program.display().to_string(), path.display().to_string());
        match error.kind() {
            io::ErrorKind::NotFound => SourceError::FfmpegMissing { program, path },
            _ => SourceError::Ffmpeg { message: format!("cannot start {program}: {error}"), path },
        }
    }

    /// Frames that the file claims to have.
    pub(crate) fn len_hint(&self) -> Option<usize> {
        self.facts.frames
    }

    /// Reads the next frame into `frame`: pixels, size, capture time and path. False at the end of the video.
    pub(crate) fn read_into(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        if self.done {
            return Ok(false);
        }
        match self.read_ppm(frame) {
            Ok(true) => {
                let rate = self.facts.frame_rate;
                frame.capture_ns = rate.map(|(over, under)| frame_time_ns(self.frames, over, under));
                frame.path.clone_from(&self.path);
                self.frames += 1;
                Ok(true)
            }
            Ok(false) => self.finish(None),
            Err(error) => self.finish(Some(error)),
        }
    }

    /// Waits for the child: its own complaint explains a broken stream better than the break does.
    fn finish(&mut self, error: Option<FormatError>) -> Result<bool, SourceError> {
        self.done = true;
        let path = self.path.as_ref().map_or_else(String::new, |path| path.display().to_string());
        if error.is_some() {
            let _ = self.child.kill();
        }
        let status = self.child.wait().map_err(SourceError::read(&path))?;
        let complaint = self.last_complaint.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        match error {
            _ if !complaint.is_empty() && (!status.success() || self.frames == 0) => {
                Err(SourceError::Ffmpeg { message: complaint, path })
            }
            Some(reason) => Err(SourceError::Format { reason, path }),
            None if !status.success() => Err(SourceError::Ffmpeg { message: status.to_string(), path }),
            None if self.frames == 0 => Err(SourceError::Ffmpeg { message: "no frames".into(), path }),
            None => Ok(false),
        }
    }

    /// `P6\nWIDTH HEIGHT\n255\n` and the RGB bytes, as ffmpeg writes it.
    fn read_ppm(&mut self, frame: &mut Frame) -> Result<bool, FormatError> {
        let unexpected = |what, line: &[u8]| FormatError::Field {
            what,
            expected: "a PPM header as ffmpeg writes it".into(),
            got: format!("{:?}", String::from_utf8_lossy(line)),
        };
        if !read_line(&mut self.stream, "PPM header", &mut self.line)? {
            return Ok(false);
        }
        if self.line != b"P6" {
            return Err(unexpected("PPM magic", &self.line));
        }
        read_line(&mut self.stream, "PPM header", &mut self.line)?;
        let sides = std::str::from_utf8(&self.line).ok().and_then(|line| line.split_once(' '));
        let sides = sides.and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
        let Some((width_px, height_px)) = sides else {
            return Err(unexpected("PPM size", &self.line));
        };
        let bytes = 3 * check_frame_size(width_px, height_px)?;
        read_line(&mut self.stream, "PPM header", &mut self.line)?;
        if self.line != b"255" {
            return Err(unexpected("PPM maximum", &self.line));
        }
        let got = read_frame_bytes(&mut self.stream, &mut frame.pixels, bytes)?;
        if got < bytes {
            return Err(FormatError::Truncated { what: "video frame", expected: bytes, got });
        }
        (frame.width_px, frame.height_px) = (width_px, height_px);
        Ok(true)
    }
}

impl Drop for FfmpegReader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last line that is not empty, read to the end so that the child never blocks on a full pipe.
fn last_line(stderr: ChildStderr) -> String {
    let mut last = String::new();
    let mut line = Vec::new();
    let mut stderr = BufReader::new(stderr);
    while let Ok(1..) = stderr.read_until(b'\n', &mut line) {
        line.truncate(MAX_HEADER_LINE_BYTES);
        let text = String::from_utf8_lossy(&line);
        if !text.trim().is_empty() {
            last = text.trim().to_string();
        }
        line.clear();
    }
    last
}

fn probe(program: &Path, path: &Path) -> Facts {
    let output = Command::new(program)
        .args(["-v", "error", "-select_streams", "V:0", "-of", "default=noprint_wrappers=1"])
        .args(["-show_entries", "stream=r_frame_rate,nb_frames,duration"])
        .arg(file_url(path))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.map(|output| parse_facts(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
}

/// Lines of `key=value`; `N/A` and anything else unreadable counts as unknown.
fn parse_facts(text: &str) -> Facts {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let frame_rate = value("r_frame_rate").and_then(|rate| rate.split_once('/'));
    let frame_rate = frame_rate.and_then(|(over, under)| Some((over.parse().ok()?, under.parse().ok()?)));
    let frame_rate = frame_rate.filter(|(over, under)| *over > 0 && *under > 0);
    let frames = value("nb_frames").and_then(|frames| frames.parse().ok());
    let by_duration = || {
        let (over, under) = frame_rate?;
        let seconds: f64 = value("duration")?.parse().ok()?;
        Some((seconds * f64::from(over) / f64::from(under)).round() as usize)
    };
    Facts { frame_rate, frames: frames.or_else(by_duration) }
}
