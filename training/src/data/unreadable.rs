//! Images that cannot be read, and the list of them in the folder of a run.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// A sample that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its name in the dataset.
    pub name: String,
    /// The error.
    pub reason: String,
}

/// The list of unreadable images in a file that is always up to date: per line a name, a tab and the reason.
#[derive(Debug)]
pub struct UnreadableList {
    path: PathBuf,
    reasons: BTreeMap<String, String>,
}

impl UnreadableList {
    /// A list that continues that of an earlier run.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let of_line = |line: &str| {
            let (name, reason) = line.split_once('\t').unwrap_or((line, ""));
            (name.to_string(), reason.to_string())
        };
        Ok(Self { path, reasons: text.lines().map(of_line).collect() })
    }

    /// Adds images and writes the file. Returns the number of images if any of them is new.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn add(&mut self, images: &[Unreadable]) -> io::Result<Option<usize>> {
        let before = self.reasons.len();
        let one_line = |text: &str| text.replace(['\n', '\r', '\t'], " ");
        self.reasons.extend(images.iter().map(|image| (one_line(&image.name), one_line(&image.reason))));
        if self.reasons.len() == before {
            return Ok(None);
        }
        let lines: String = self.reasons.iter().map(|(name, reason)| format!("{name}\t{reason}\n")).collect();
        crate::files::write_bytes(&self.path, lines.as_bytes())?;
        Ok(Some(self.reasons.len()))
    }

    /// The file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}
