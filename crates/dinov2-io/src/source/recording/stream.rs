//! Recordings on disk: one file, or the files of a split bag.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use dinov2_files::chain;

use super::{OpenFault, RecordingReader};
use crate::source::stream::Stream;
use crate::{Frame, SourceError};

/// The images of one topic of some files, in their order.
pub(crate) struct RecordingStream {
    reader: Option<RecordingReader<BufReader<File>>>,
    /// The current or last file.
    path: PathBuf,
    later: VecDeque<PathBuf>,
    topic: Option<String>,
    len_hint: Option<usize>,
    notes: Vec<String>,
    /// What is missing, reported at the end.
    missing: Option<SourceError>,
}

impl RecordingStream {
    /// Opens the first file that has images of `topic`; without one, of the topic that has the first image.
    pub(crate) fn open(files: &[PathBuf], topic: Option<&str>) -> Result<Self, SourceError> {
        let mut stream = Self {
            reader: None,
            path: PathBuf::new(),
            later: files.iter().cloned().collect(),
            topic: topic.map(str::to_string),
            len_hint: None,
            notes: Vec::new(),
            missing: None,
        };
        let mut barren = None;
        while stream.reader.is_none() {
            let Some(path) = stream.later.pop_front() else {
                let nothing = || SourceError::Input { expected: "a recording".into(), got: "none".into() };
                return Err(stream.missing.or(barren).unwrap_or_else(nothing));
            };
            if let Some(reason) = stream.start(path) {
                barren.get_or_insert(reason);
            }
        }
        if let ([_], Some(reader)) = (files, &stream.reader) {
            stream.len_hint = reader.len_hint();
        }
        Ok(stream)
    }

    /// Opens a file. Returns the error of a complete file without images; a damaged file counts as missing.
    fn start(&mut self, path: PathBuf) -> Option<SourceError> {
        let opened = open_file(&path, self.topic.as_deref());
        self.path = path;
        match opened {
            Ok(reader) => {
                self.topic.get_or_insert_with(|| reader.topic().to_string());
                self.reader = Some(reader);
                None
            }
            Err(FileFault::NoImages(reason)) => Some(reason),
            Err(FileFault::Broken(reason)) => {
                self.miss(reason);
                None
            }
        }
    }

    /// The first loss is the error at the end, later ones are notes.
    fn miss(&mut self, reason: SourceError) {
        match self.missing {
            None => self.missing = Some(reason),
            Some(_) => self.notes.push(chain(&reason)),
        }
    }

    fn collect_notes(&mut self) {
        let notes = self.reader.as_mut().map(RecordingReader::take_notes).unwrap_or_default();
        if !notes.is_empty() {
            self.notes.push(format!("{}: {}", self.path.display(), notes.join("; ")));
        }
    }
}

enum FileFault {
    NoImages(SourceError),
    Broken(SourceError),
}

fn open_file(path: &Path, topic: Option<&str>) -> Result<RecordingReader<BufReader<File>>, FileFault> {
    let file = File::open(path).map_err(SourceError::read(path.display())).map_err(FileFault::Broken)?;
    RecordingReader::open(BufReader::new(file), topic).map_err(|reason| match reason {
        OpenFault::NoImages(reason) => FileFault::NoImages(SourceError::format(path.display())(reason)),
        OpenFault::Broken(reason) => FileFault::Broken(SourceError::format(path.display())(reason)),
    })
}

impl Stream for RecordingStream {
    fn read_into(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        loop {
            if let Some(reader) = &mut self.reader {
                match reader.read_into(frame) {
                    Ok(true) => {
                        frame.path = Some(self.path.clone());
                        return Ok(true);
                    }
                    Ok(false) => {}
                    Err(reason) => {
                        let reason = SourceError::format(self.path.display())(reason);
                        self.miss(reason);
                    }
                }
                self.collect_notes();
                self.reader = None;
            }
            let Some(path) = self.later.pop_front() else {
                return self.missing.take().map_or(Ok(false), Err);
            };
            // A file without images of this topic is not an error: its camera gave no images in that time.
            self.start(path);
        }
    }

    fn len_hint(&self) -> Option<usize> {
        self.len_hint
    }

    fn take_note(&mut self) -> Option<String> {
        self.collect_notes();
        let notes = std::mem::take(&mut self.notes);
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}
