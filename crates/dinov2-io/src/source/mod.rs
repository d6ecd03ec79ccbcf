//! Sources of frames.
//!
//! To add a kind of file or pipe: a file here with an `impl Stream`, a variant of `inputs::Input`, and a line in
//! `inputs::classify` that recognises it. Cameras implement [`Source`] directly, because they are configured and monitored.

mod animation;
mod bag;
mod ffmpeg;
mod heif;
mod inputs;
mod labelled;
mod labels;
mod live;
pub mod mjpeg;
mod natural_order;
mod pattern;
mod raw;
mod read;
#[cfg(feature = "mcap")]
mod recording;
mod still;
mod stream;
mod test_camera;
mod v4l2;
pub mod y4m;
mod yuv;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

pub use inputs::{list_glob, list_images};
pub use labelled::PairedImages;
pub use labels::Labels;
pub use live::{LiveHandle, StopSignal};
pub use natural_order::natural_order;
pub use raw::{RawFormat, RawPixels, RawReader};
#[cfg(feature = "mcap")]
pub use recording::RecordingReader;
pub use still::{decode_still, read_still};
pub use test_camera::TestCamera;
pub use v4l2::{
    Camera, CameraConfig, CameraControl, CameraFormat, CameraInfo, CameraPixels, CameraRates, CameraSize,
    ControlKind, list_cameras,
};
pub use yuv::YuvRange;

use crate::names;
use crate::{Frame, SourceError};
use ffmpeg::FfmpegReader;
use inputs::Input;
use pattern::Pattern;
use still::StillDecoder;
use stream::{MjpegStream, Stream, Y4mStream};

/// A sequence of frames.
pub trait Source: Send {
    /// Writes the next frame to `frame`, reusing its buffers. False at the end.
    ///
    /// # Errors
    /// If an input cannot be opened, read or decoded. The next call continues with the next input.
    fn next_frame(&mut self, frame: &mut Frame) -> Result<bool, SourceError>;

    /// Number of frames of the whole run if known, for progress bars only.
    fn len_hint(&self) -> Option<usize>;

    /// True if frames of one input follow each other in time; false for single images.
    fn is_video(&self) -> bool;

    /// For live sources: the handle by which other threads stop and watch it. Late frames of live sources are dropped.
    fn live(&self) -> Option<LiveHandle> {
        None
    }

    /// Files that the source reads. Outputs must not replace them.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Notes for the user that are not errors: ignored files, skipped corrupt frames. Each is returned once.
    fn take_notes(&mut self) -> Vec<String>;
}

/// Options for opening inputs.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Format of frames without a header on standard input or a pipe.
    pub raw: Option<RawFormat>,
    /// The program that decodes videos.
    pub ffmpeg: PathBuf,
    /// Topic of a recording to replay; by default the topic of the first image.
    pub topic: Option<String>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self { raw: None, ffmpeg: PathBuf::from("ffmpeg"), topic: None }
    }
}

/// Opens image files, folders, globs, videos, recordings, `-` (standard input) and `test:` patterns, in the given order. A
/// frame is named after its file; if several files have the same name, after their folders too.
///
/// A folder means its images, or its videos if it has no images, in natural order; files that are left out are noted. All
/// frames of GIF, WebP and PNG animations are read. If a video file has several video streams, the first is read, which is
/// noted. Times ([`Frame::capture_ns`]) are those of the file.
///
/// HEIC and AVIF photographs need the program `heif-dec` or `heif-convert` of libheif. Videos other than y4m and MJPEG need
/// `ffmpeg`.
///
/// # Errors
/// An input that does not exist or is of no known kind; a folder or glob without images; a first input that cannot
/// be opened.
pub fn open(inputs: &[impl AsRef<OsStr>], options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    let mut notes = Vec::new();
    let inputs = inputs::expand(inputs, &mut notes)?;
    let is_video = !inputs.iter().all(Input::is_still);
    let len_hint = (!is_video).then_some(inputs.len());
    let alone = inputs.len() == 1;
    let (names, renamed) = names::plan(&inputs.iter().map(Input::named).collect::<Vec<_>>());
    if let (true, Some(example)) = (renamed, names.first()) {
        notes.push(format!("several inputs have the same name: frames are named like {example:?}"));
    }
    let mut sequence = InputSequence {
        files: inputs.iter().flat_map(Input::files).collect(),
        inputs: inputs.into_iter().zip(names).collect::<Vec<_>>().into_iter(),
        options: options.clone(),
        current: None,
        still: StillDecoder::default(),
        index: 0,
        len_hint,
        is_video,
        notes,
    };
    // A video that cannot be opened should be known before a model is loaded for it.
    let is_stream = |(input, _): &(Input, String)| !matches!(input, Input::Still(_) | Input::Animation(_));
    if alone && sequence.inputs.as_slice().first().is_some_and(is_stream) {
        let (input, name) = sequence.inputs.next().expect("one input");
        let current = sequence.open_stream(&input, name)?;
        sequence.len_hint = current.stream.len_hint();
        sequence.current = Some(current);
    }
    Ok(Box::new(sequence))
}

/// Parses `WIDTHxHEIGHT` within the limits of a frame.
fn parse_size(size: &str) -> Option<(usize, usize)> {
    let (width, height) = size.split_once(['x', 'X'])?;
    let side = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let (width_px, height_px) = (side(width)?, side(height)?);
    crate::limits::check_frame_size(width_px, height_px).ok()?;
    Some((width_px, height_px))
}

/// Reads one input after the other.
struct InputSequence {
    /// Each with the name of its frames.
    inputs: std::vec::IntoIter<(Input, String)>,
    files: Vec<PathBuf>,
    options: SourceOptions,
    current: Option<Current>,
    still: StillDecoder,
    index: usize,
    len_hint: Option<usize>,
    is_video: bool,
    notes: Vec<String>,
}

/// The stream being read.
struct Current {
    stream: Box<dyn Stream>,
    stem: String,
    frames: usize,
}

impl Source for InputSequence {
    fn next_frame(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        (frame.capture_ns, frame.captured) = (None, None);
        loop {
            if let Some(current) = &mut self.current {
                let more = current.stream.read_into(frame);
                self.notes.extend(current.stream.take_note());
                if let Ok(true) = more {
                    frame.name.clear();
                    let (stem, frames) = (&current.stem, current.frames);
                    std::fmt::Write::write_fmt(&mut frame.name, format_args!("{stem}_{frames:06}"))
                        .expect("writing to a string succeeds");
                    current.frames += 1;
                    return Ok(self.count(frame));
                }
                self.current = None;
                more?;
            }
            match self.inputs.next() {
                None => return Ok(false),
                Some((Input::Still(path) | Input::Animation(path), name)) => {
                    if let Some(animation) = self.still.load(&path)? {
                        self.current = Some(Current { stream: Box::new(animation), stem: name, frames: 0 });
                        continue;
                    }
                    self.still.decode_into(&path, frame)?;
                    frame.name = name;
                    return Ok(self.count(frame));
                }
                Some((input, name)) => self.current = Some(self.open_stream(&input, name)?),
            }
        }
    }

    fn len_hint(&self) -> Option<usize> {
        self.len_hint
    }

    fn is_video(&self) -> bool {
        self.is_video
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

impl InputSequence {
    fn count(&mut self, frame: &mut Frame) -> bool {
        frame.index = self.index;
        self.index += 1;
        true
    }

    fn open_stream(&self, input: &Input, stem: String) -> Result<Current, SourceError> {
        let open = |path: &Path| File::open(path).map_err(SourceError::read(path.display()));
        let stream: Box<dyn Stream> = match input {
            Input::Still(_) | Input::Animation(_) => unreachable!("images are read whole, not opened"),
            Input::Y4m(path) => Box::new(Y4mStream::of_file(open(path)?, path)?),
            Input::Mjpeg(path) => {
                Box::new(MjpegStream::new(Box::new(open(path)?), path.display(), Some(path)))
            }
            #[cfg(feature = "mcap")]
            Input::Recording { files, .. } => {
                Box::new(recording::RecordingStream::open(files, self.options.topic.as_deref())?)
            }
            #[cfg(not(feature = "mcap"))]
            Input::Recording { path, .. } => {
                return Err(SourceError::Input {
                    expected: "no recording, as this program was built without the feature `mcap`".into(),
                    got: path.display().to_string(),
                });
            }
            Input::Video(path) => Box::new(FfmpegReader::open(&self.options.ffmpeg, path)?),
            Input::Pipe(path) => {
                stream::open_pipe(Box::new(open(path)?), &path.display().to_string(), &self.options)?
            }
            Input::Stdin => stream::open_pipe(Box::new(std::io::stdin()), "standard input", &self.options)?,
            Input::Pattern(words) => Box::new(Pattern::parse(words)?),
        };
        Ok(Current { stream, stem, frames: 0 })
    }
}
