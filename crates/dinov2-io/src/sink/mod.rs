//! Sinks: where features go.
//!
//! A file of features appears under its final name only when it is whole: it is written beside it under a temporary name
//! and renamed. A recording is written in place, so that what was recorded before a crash is there.

mod npy;
mod picture;
#[cfg(feature = "mcap")]
mod recording;
mod safetensors;
mod whole_file;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dinov2_core::{Features, ImageView};

use crate::Frame;
use picture::Picture;
#[cfg(feature = "mcap")]
pub use recording::{FeatureNumbers, Recorded, Recording, RecordingMeta};
use whole_file::write_whole;

/// What a feature file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Every tensor and the facts about the frame: `.safetensors`.
    #[default]
    Safetensors,
    /// The patch features alone, `[rows, cols, dim]` f32: `.npy`.
    Npy,
    /// The image, and beside it a picture of its features: `.png`.
    Png,
}

impl Format {
    /// Extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Npy => "npy",
            Self::Png => "png",
        }
    }
}

impl FromStr for Format {
    type Err = SinkError;

    fn from_str(word: &str) -> Result<Self, SinkError> {
        let all = [Self::Safetensors, Self::Npy, Self::Png];
        let found = all.into_iter().find(|format| word.eq_ignore_ascii_case(format.extension()));
        found.ok_or_else(|| SinkError::Kind(word.to_string()))
    }
}

/// Why features cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// An output of an unknown kind.
    #[error("output: expected a folder or a file ending in .safetensors, .npy or .png, got {0:?}")]
    Kind(String),
    /// One file for more than one frame.
    #[error("output: expected a folder for more than one frame, got the file {path}")]
    OneFile {
        /// The file.
        path: String,
    },
    /// A picture without a view of the features.
    #[error("picture: expected a view of {expected} bytes of RGB, got {got} in {path}")]
    View {
        /// Bytes of `[rows, cols, 3]`.
        expected: usize,
        /// Bytes given.
        got: usize,
        /// File that was to be written.
        path: String,
    },
    /// A recording would replace a file.
    #[error("recording: expected the name of a new file, got one that exists: {path}")]
    Exists {
        /// The file.
        path: String,
    },
    /// The system refuses.
    #[error("cannot write: {reason}: {path}")]
    Write {
        /// What the system says.
        reason: io::Error,
        /// File or folder.
        path: String,
    },
}

/// What a feature file tells about how it was made, besides what the frame and the features tell themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureMeta {
    /// Name of the architecture, such as `ViT-S/14`.
    pub model: String,
    /// File or label of the model.
    pub model_file: String,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Engine, such as `cpu`.
    pub engine: String,
    /// Precision, such as `f32`.
    pub precision: String,
    /// Anything else, by key.
    pub extra: Vec<(String, String)>,
}

/// A picture of the features, one colour per patch.
#[derive(Clone, Copy, Debug)]
pub struct RgbGrid<'a> {
    /// `[rows, cols, 3]`
    pub pixels: &'a [u8],
}

/// Writes the features of frames, each into a file of its own.
#[derive(Debug)]
pub struct Output {
    target: Target,
    picture: Picture,
}

#[derive(Debug)]
enum Target {
    File { path: PathBuf, format: Format, written: bool },
    Folder { path: PathBuf, format: Format, names: HashSet<String> },
}

impl Output {
    /// A file by the extension of `path` (`.safetensors`, `.npy`, `.png`); a folder if it has none, ends in a slash or
    /// is one already. Nothing is created before the first [`Self::write`].
    ///
    /// # Errors
    /// An unknown extension; one file though `many_frames` are to come; a file in a folder that does not exist.
    pub fn from_path(path: impl AsRef<Path>, many_frames: bool) -> Result<Self, SinkError> {
        let path = path.as_ref();
        let text = path.to_string_lossy();
        let slash = text.ends_with(['/', std::path::MAIN_SEPARATOR]);
        let target = match path.extension() {
            _ if slash || path.is_dir() => Self::folder(path),
            None if path.file_name().is_none() => return Err(SinkError::Kind(text.into_owned())),
            None => Self::folder(path),
            Some(extension) => {
                let format =
                    extension.to_string_lossy().parse().map_err(|_| SinkError::Kind(text.to_string()))?;
                if many_frames {
                    return Err(SinkError::OneFile { path: text.into_owned() });
                }
                let parent = whole_file::folder_of(path);
                if !parent.is_dir() {
                    let reason = io::Error::new(io::ErrorKind::NotFound, "no such folder");
                    return Err(SinkError::Write { reason, path: parent.display().to_string() });
                }
                Target::File { path: path.to_path_buf(), format, written: false }
            }
        };
        Ok(Self { target, picture: Picture::default() })
    }

    fn folder(path: &Path) -> Target {
        Target::Folder { path: path.to_path_buf(), format: Format::default(), names: HashSet::new() }
    }

    /// Sets the format of the files in a folder; a single file keeps that of its extension.
    #[must_use]
    pub fn with_folder_format(mut self, wanted: Format) -> Self {
        if let Target::Folder { format, .. } = &mut self.target {
            *format = wanted;
        }
        self
    }

    /// The format that is written.
    pub fn format(&self) -> Format {
        match self.target {
            Target::File { format, .. } | Target::Folder { format, .. } => format,
        }
    }

    /// True if [`Self::write`] wants a picture of the features.
    pub fn needs_view(&self) -> bool {
        self.format() == Format::Png
    }

    /// Writes the features of `frame` and returns the file. `fitted` is the image that the engine saw, `view` a picture
    /// of the features (only used for `.png`). In a folder the file is named after the frame; a name used before in
    /// this run gets a number.
    ///
    /// # Errors
    /// A second frame for a single file, a missing view, or what the system refuses; no partial file is left.
    pub fn write(
        &mut self,
        frame: &Frame,
        fitted: ImageView<'_>,
        features: &Features,
        view: Option<RgbGrid<'_>>,
        meta: &FeatureMeta,
    ) -> Result<PathBuf, SinkError> {
        let path = self.next_path(&frame.name)?;
        match self.format() {
            Format::Safetensors => {
                let facts = safetensors::facts(frame, fitted, features, meta);
                write_whole(&path, |file| safetensors::write(file, features, &facts))?;
            }
            Format::Npy => {
                let (grid, dim) = (features.grid(), features.dim());
                write_whole(&path, |file| {
                    npy::write(file, &[grid.rows, grid.cols, dim], features.patches())
                })?;
            }
            Format::Png => {
                let grid = features.grid();
                let (expected, pixels) = (grid.len() * 3, view.map_or(&[][..], |view| view.pixels));
                if pixels.len() != expected || expected == 0 {
                    let path = path.display().to_string();
                    return Err(SinkError::View { expected, got: pixels.len(), path });
                }
                let (pixels, width, height) = self.picture.beside(fitted, grid, pixels);
                write_whole(&path, |file| picture::write_png(file, pixels, width, height))?;
            }
        }
        Ok(path)
    }

    fn next_path(&mut self, name: &str) -> Result<PathBuf, SinkError> {
        match &mut self.target {
            Target::File { path, written: true, .. } => {
                Err(SinkError::OneFile { path: path.display().to_string() })
            }
            Target::File { path, written, .. } => {
                *written = true;
                Ok(path.clone())
            }
            Target::Folder { path, format, names } => {
                let refused = |reason| SinkError::Write { reason, path: path.display().to_string() };
                fs::create_dir_all(&*path).map_err(refused)?;
                let extension = format.extension();
                let numbered = (2_usize..).map(|number| format!("{name}_{number}"));
                let free =
                    std::iter::once(name.to_string()).chain(numbered).find(|name| !names.contains(name));
                let free = free.expect("numbers do not run out");
                let file = path.join(format!("{free}.{extension}"));
                names.insert(free);
                Ok(file)
            }
        }
    }
}
