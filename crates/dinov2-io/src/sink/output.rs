//! One feature file per frame, in a single file or a folder.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dinov2_core::{Features, HeadOutput, ImageView};
use dinov2_files::{Inputs, Replace, Target, folder_of, shown, write_whole};

use super::arrays::{self, Values};
use super::index::Index;
use super::picture::{self, Picture};
use super::{FeatureMeta, Format, SinkError, npy, safetensors};
use crate::Frame;
use crate::names::name_of;

/// Writes the features of frames, each into a file of its own.
#[derive(Debug)]
pub struct Output {
    destination: Destination,
    rule: Target,
    picture: Picture,
}

#[derive(Debug)]
enum Destination {
    File { format: Format, written: bool },
    Folder { format: Format, names: HashSet<String>, index: Option<Index> },
}

impl Output {
    /// A file by the extension of `path` (`.safetensors`, `.npy`, `.png`); a folder if it has none, ends in a slash or
    /// is one already. Nothing is created before the first [`Self::write`].
    ///
    /// # Errors
    /// An unknown extension; a single file for `many_frames`; a file in a folder that does not exist; a name without
    /// extension that exists and is not a folder.
    pub fn from_path(path: impl AsRef<Path>, many_frames: bool) -> Result<Self, SinkError> {
        let path = path.as_ref();
        let slash = path.as_os_str().as_encoded_bytes().ends_with(b"/")
            || path.to_string_lossy().ends_with(std::path::MAIN_SEPARATOR);
        let folder = Destination::Folder { format: Format::default(), names: HashSet::new(), index: None };
        let destination = match path.extension() {
            _ if slash || path.is_dir() => folder,
            None if path.file_name().is_none() || path.exists() => {
                return Err(SinkError::Kind(shown(path)));
            }
            None => folder,
            Some(extension) => {
                let format = extension.to_string_lossy().parse().map_err(|_| SinkError::Kind(shown(path)))?;
                if many_frames {
                    return Err(SinkError::OneFile { path: shown(path) });
                }
                let parent = folder_of(path);
                if !parent.is_dir() {
                    let source = io::Error::new(io::ErrorKind::NotFound, "no such folder");
                    return Err(SinkError::Write { source, path: shown(parent) });
                }
                Destination::File { format, written: false }
            }
        };
        Ok(Self { destination, rule: Target::new(path), picture: Picture::default() })
    }

    /// Sets the format of the files in a folder; a single file keeps that of its extension.
    #[must_use]
    pub fn with_folder_format(mut self, wanted: Format) -> Self {
        if let Destination::Folder { format, .. } = &mut self.destination {
            *format = wanted;
        }
        self
    }

    /// Sets the rules for replacing files: never these inputs, others as in `replace`.
    #[must_use]
    pub fn with_rule(self, inputs: &Inputs, replace: Replace) -> Self {
        let rule = self.rule.never_over(inputs).replacing(replace);
        Self { rule, ..self }
    }

    /// Checks whether a single file may be written, before the work begins. Files in a folder are checked one by one in
    /// [`Self::write`].
    ///
    /// # Errors
    /// If a file exists that must not be replaced.
    pub fn check(&self) -> Result<(), SinkError> {
        if let Destination::File { format, .. } = self.destination {
            self.rule.check(format.kind())?;
        }
        Ok(())
    }

    /// The format that is written.
    pub fn format(&self) -> Format {
        match self.destination {
            Destination::File { format, .. } | Destination::Folder { format, .. } => format,
        }
    }

    /// Writes the features of `frame` and returns the file. `fitted` is the image that the engine saw, `outputs` the outputs of heads by
    /// name: tensors of the same file (`.safetensors`), files beside it (`.npy`), or panels beside the image (`.png`). In a folder the
    /// file is named after the frame, and `index.jsonl` lists the source of each file whose format has no place for it (docs/outputs.md).
    ///
    /// # Errors
    /// A second frame for a single file or with the same name, a picture without any output that it can show, a file that must not be
    /// replaced, or an error of the system. No partial file is left.
    pub fn write(
        &mut self,
        frame: &Frame,
        fitted: ImageView<'_>,
        features: &Features,
        outputs: &[(&str, &HeadOutput)],
        meta: &FeatureMeta,
    ) -> Result<PathBuf, SinkError> {
        let target = self.next_target(&frame.name)?;
        let format = self.format();
        let kind = format.kind();
        let facts = safetensors::facts(frame, fitted, features, meta);
        let path = match format {
            Format::Safetensors => {
                write_whole(&target, kind, |file| safetensors::write(file, features, outputs, &facts))?
            }
            Format::Npy => {
                for (name, output) in outputs {
                    let beside = self.rule.at(target.path().with_extension(format!("{name}.npy")));
                    let (shape, values) = arrays::array_of(output);
                    write_whole(&beside, kind, |file| npy::write(file, &shape, &values))?;
                }
                let (grid, dim) = (features.grid(), features.dim());
                write_whole(&target, kind, |file| {
                    npy::write(file, &[grid.rows, grid.cols, dim], &Values::F32(features.patches().into()))
                })?
            }
            Format::Png => {
                let picture = self.picture.beside(fitted, outputs);
                let Some((pixels, width, height)) = picture else {
                    return Err(SinkError::NoPanel { path: shown(target.path()) });
                };
                write_whole(&target, kind, |file| {
                    picture::write_png(file, pixels, width, height, Some(&facts))
                })?
            }
        };
        self.add_to_index(&path, frame, fitted, features)?;
        Ok(path)
    }

    /// The file of the next frame.
    fn next_target(&mut self, name: &str) -> Result<Target, SinkError> {
        let path = self.rule.path();
        match &mut self.destination {
            Destination::File { written: true, .. } => Err(SinkError::OneFile { path: shown(path) }),
            Destination::File { written, .. } => {
                *written = true;
                Ok(self.rule.clone())
            }
            Destination::Folder { format, names, .. } => {
                // Only for the first frame: removing the folder during a run is a way to end the run.
                if names.is_empty() {
                    let refused = |source| SinkError::Write { source, path: shown(path) };
                    fs::create_dir_all(path).map_err(refused)?;
                }
                let name = name_of(OsStr::new(name));
                // File systems may ignore case.
                if !names.insert(name.to_lowercase()) {
                    return Err(SinkError::SameName { name, path: shown(path) });
                }
                Ok(self.rule.at(path.join(format!("{name}.{}", format.extension()))))
            }
        }
    }

    fn add_to_index(
        &mut self,
        file: &Path,
        frame: &Frame,
        fitted: ImageView<'_>,
        features: &Features,
    ) -> Result<(), SinkError> {
        let Destination::Folder { format: Format::Npy | Format::Png, index, .. } = &mut self.destination
        else {
            return Ok(());
        };
        let index = match index {
            Some(index) => index,
            None => index.insert(Index::open(&self.rule)?),
        };
        index.add(file, frame, fitted, features)
    }
}
