//! Errors of streams and sources. Stream readers report a [`FormatError`]; sources add the path.

use std::io;

/// Why bytes cannot be decoded. Stream readers report this error; they do not know the path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A field with an invalid value.
    #[error("{what}: expected {expected}, got {got}")]
    Field {
        /// The field.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// The stream ends in the middle.
    #[error("{what}: expected {expected} bytes, got {got}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Expected number of bytes.
        expected: usize,
        /// Number of bytes found.
        got: usize,
    },
    /// The error of the image decoder.
    #[error(transparent)]
    Image(#[from] image::ImageError),
    /// Reading failed.
    #[error("cannot read the stream")]
    Io(#[from] io::Error),
}

/// Why a source cannot be opened or cannot give its next frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Bytes that are not what they should be.
    #[error("cannot decode {path}")]
    Format {
        /// The reason.
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
    /// An input that does not name anything readable.
    #[error("input: expected {expected}, got {got}")]
    Input {
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A video, but no `ffmpeg` to decode it.
    #[error(
        "video: expected the program `{program}` to decode it, got none (Debian: apt install ffmpeg, macOS: brew install ffmpeg): {path}"
    )]
    FfmpegMissing {
        /// The program that was looked for.
        program: String,
        /// The video.
        path: String,
    },
    /// `ffmpeg` failed.
    #[error("ffmpeg: {message} in {path}")]
    Ffmpeg {
        /// Its error message, or its exit status.
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
    /// libheif's program failed.
    #[error("{program}: {message}: {path}")]
    Heif {
        /// Its name.
        program: &'static str,
        /// Its error message, or its exit status.
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
    /// A damaged or cut-off video. All frames that could be decoded were given before this error.
    #[error(
        "video: expected whole data, got a damaged or cut-off file, of which {frames} frames were decoded ({message}): {path}"
    )]
    Damaged {
        /// Number of decoded frames.
        frames: u64,
        /// The first error that ffmpeg reported.
        message: String,
        /// The video.
        path: String,
    },
    /// A camera that cannot be used as configured.
    #[error("camera: {what}: {path}")]
    Camera {
        /// The problem and advice.
        what: String,
        /// Its device node.
        path: String,
    },
}

impl SourceError {
    /// Adds the path to the error of a stream reader.
    pub(crate) fn format(path: impl ToString) -> impl FnOnce(FormatError) -> Self {
        move |source| Self::Format { source, path: dinov2_files::shown(path.to_string()) }
    }

    /// Adds the path to the system's error.
    pub(crate) fn read(path: impl ToString) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Read { source, path: dinov2_files::shown(path.to_string()) }
    }
}
