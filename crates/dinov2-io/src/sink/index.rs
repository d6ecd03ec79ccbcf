//! The index of a folder: one JSON line per file with its source and sizes. Format: docs/outputs.md.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use dinov2_core::{Features, ImageView};
use dinov2_files::{FileError, Kind, Replace, Target, hex_unless_utf8, write_whole};
use serde::Serialize;

use super::SinkError;
use crate::Frame;

/// Its name in the folder.
const INDEX: &str = "index.jsonl";

/// An open index. Lines are appended to those of earlier runs, so that every file in the folder has one. If a file has
/// several lines, the last one is valid.
#[derive(Debug)]
pub(super) struct Index {
    file: File,
    target: Target,
}

/// A line. `file` comes first: an index is recognised by it.
#[derive(Serialize)]
struct Line<'a> {
    file: String,
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_hex: Option<String>,
    frame_name: &'a str,
    frame_index: usize,
    capture_ns: Option<u64>,
    frame_size_px: [usize; 2],
    image_size_px: [usize; 2],
    grid: Grid,
    dim: usize,
}

#[derive(Serialize)]
struct Grid {
    rows: usize,
    cols: usize,
}

impl Index {
    /// The index of the folder that `rule` names.
    pub(super) fn open(rule: &Target) -> Result<Self, SinkError> {
        let target = rule.at(rule.path().join(INDEX));
        let place = match target.clone().replacing(Replace::SameKind).check(Kind::Index) {
            Err(FileError::OtherKind { .. }) => {
                // Allowed only where any file may be replaced.
                write_whole(&target, Kind::Index, |_| Ok(()))?;
                target.check(Kind::Index)?
            }
            place => place?,
        };
        let file = OpenOptions::new().append(true).create(true).open(place);
        let file = file.map_err(FileError::write(target.path()))?;
        Ok(Self { file, target })
    }

    /// Adds a file of the folder.
    pub(super) fn add(
        &mut self,
        file: &Path,
        frame: &Frame,
        fitted: ImageView<'_>,
        features: &Features,
    ) -> Result<(), SinkError> {
        let grid = features.grid();
        let path = frame.path.as_deref();
        let line = Line {
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            source: path.map(|path| path.to_string_lossy().into_owned()),
            source_hex: path.and_then(hex_unless_utf8),
            frame_name: &frame.name,
            frame_index: frame.index,
            capture_ns: frame.capture_ns,
            frame_size_px: [frame.width_px, frame.height_px],
            image_size_px: [fitted.width_px(), fitted.height_px()],
            grid: Grid { rows: grid.rows, cols: grid.cols },
            dim: features.dim(),
        };
        let write = |file: &mut File| -> io::Result<()> {
            let mut bytes = serde_json::to_vec(&line)?;
            bytes.push(b'\n');
            // In one write, so that lines of two runs do not mix.
            file.write_all(&bytes)
        };
        write(&mut self.file).map_err(FileError::write(self.target.path()))?;
        Ok(())
    }
}
