use std::io;

/// Why bytes are not a frame: what the stream readers report, which do not know where their bytes come from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A field with a value that cannot be.
    #[error("{what}: expected {expected}, got {got}")]
    Field {
        /// The field.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// The stream ends in the middle.
    #[error("{what}: expected {expected} bytes, got {got}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes that it should have.
        expected: usize,
        /// Bytes that it has.
        got: usize,
    },
    /// The error of the image decoder.
    #[error(transparent)]
    Image(#[from] image::ImageError),
    /// Reading failed.
    #[error("cannot read the stream")]
    Io(#[from] io::Error),
}

/// Why a source cannot be opened, or has no next frame to give.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Bytes that are not what they should be.
    #[error("cannot decode {path}")]
    Format {
        /// What is wrong.
        source: FormatError,
        /// File or stream.
        path: String,
    },
    /// A file or folder that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The system's error.
        source: io::Error,
        /// File or folder.
        path: String,
    },
    /// An input that names nothing usable.
    #[error("input: expected {expected}, got {got}")]
    Input {
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A video, but no `ffmpeg` to decode it.
    #[error(
        "video: expected the program `{program}` to decode it, got none (Debian: apt install ffmpeg, macOS: brew install ffmpeg): {path}"
    )]
    FfmpegMissing {
        /// Name under which it was looked for.
        program: String,
        /// The video.
        path: String,
    },
    /// `ffmpeg` gave up.
    #[error("ffmpeg: {message} in {path}")]
    Ffmpeg {
        /// Its reason, or its exit status.
        message: String,
        /// The video.
        path: String,
    },
    /// A decoder program that is installed but cannot be run.
    #[error("cannot run {program} for {path}")]
    Program {
        /// Name or path of the program.
        program: String,
        /// The system's error.
        source: io::Error,
        /// The file that it was to decode.
        path: String,
    },
    /// A HEIC or AVIF photograph, but no program of libheif to decode it.
    #[error(
        "HEIC or AVIF image: expected libheif's program `heif-dec` or `heif-convert` to decode it, got none (Debian: apt install libheif-examples, macOS: brew install libheif): {path}"
    )]
    HeifMissing {
        /// The photograph.
        path: String,
    },
    /// libheif's program gave up.
    #[error("{program}: {message}: {path}")]
    Heif {
        /// Its name.
        program: &'static str,
        /// What it says, or how it ended.
        message: String,
        /// The photograph.
        path: String,
    },
    /// A file without a video stream.
    #[error(
        "video: expected a video stream, got a file without one (only sound, subtitles or a cover picture): {path}"
    )]
    NoVideo {
        /// The file.
        path: String,
    },
    /// A video of which something is missing. All frames that could be decoded have been given before.
    #[error(
        "video: expected whole data, got a damaged or cut-off file, of which {frames} frames were decoded ({message}): {path}"
    )]
    Damaged {
        /// Frames that were decoded.
        frames: u64,
        /// What ffmpeg found first.
        message: String,
        /// The video.
        path: String,
    },
    /// A camera that cannot be used as it was asked to.
    #[error("camera: {what}: {path}")]
    Camera {
        /// What is wrong, and what to do about it.
        what: String,
        /// Its device node.
        path: String,
    },
}

impl SourceError {
    /// Adds the path to what a stream reader reports.
    pub(crate) fn format(path: impl ToString) -> impl FnOnce(FormatError) -> Self {
        move |source| Self::Format { source, path: dinov2_files::shown(path.to_string()) }
    }

    /// Adds the path to what the system reports.
    pub(crate) fn read(path: impl ToString) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { source, path: dinov2_files::shown(path.to_string()) }
    }
}
