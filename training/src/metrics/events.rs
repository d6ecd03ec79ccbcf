//! TensorBoard event files.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use super::MetricsError;
use super::messages::{Content, Event, Image, SessionLog, SessionStatus, Summary, Value, What};
use super::records::{read_record, write_record};

/// How TensorBoard recognises event files.
const PREFIX: &str = "events.out.tfevents.";
/// Version of the format, of the first event of a file; from this one on readers heed session logs.
const FILE_VERSION: &str = "brain.Event:2";
/// RGB, in the numbers of `summary.proto`.
const RGB: i32 = 3;

/// The event file of one process. A resumed run opens another file, which readers treat as its continuation.
#[derive(Debug)]
pub(super) struct EventFile {
    file: BufWriter<File>,
    path: PathBuf,
    encoded: Vec<u8>,
}

impl EventFile {
    /// A new file in `folder`. With `resume_step`, the events of later steps are cut from the files that are there, and a
    /// reader that has them already is told to drop them.
    pub(super) fn open(folder: &Path, resume_step: Option<u64>, unix_s: f64) -> Result<Self, MetricsError> {
        let earlier = event_files(folder)?;
        if let Some(step) = resume_step {
            earlier.iter().try_for_each(|path| cut_back(path, step))?;
        }
        let path = folder.join(next_name(earlier.last(), unix_s));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(MetricsError::write(&path))?;
        let mut events = Self { file: BufWriter::new(file), path, encoded: Vec::new() };
        events.write(0, unix_s, What::FileVersion(FILE_VERSION.into()))?;
        if let Some(step) = resume_step {
            let start = SessionLog { status: SessionStatus::Start.into() };
            events.write(step.saturating_add(1), unix_s, What::SessionLog(start))?;
        }
        events.flush()?;
        Ok(events)
    }

    pub(super) fn scalars(
        &mut self,
        step: u64,
        unix_s: f64,
        scalars: &[(String, f64)],
    ) -> Result<(), MetricsError> {
        let value = |(name, value): &(String, f64)| Value {
            tag: name.clone(),
            content: Some(Content::SimpleValue(*value as f32)),
        };
        let value = scalars.iter().map(value).collect();
        self.write(step, unix_s, What::Summary(Summary { value }))
    }

    /// `png` of `(width, height)` pixels.
    pub(super) fn image(
        &mut self,
        step: u64,
        unix_s: f64,
        name: &str,
        png: &[u8],
        (width, height): (u32, u32),
    ) -> Result<(), MetricsError> {
        let side = |side: u32| i32::try_from(side).unwrap_or(i32::MAX);
        let image = Image {
            height: side(height),
            width: side(width),
            colorspace: RGB,
            encoded_image_string: png.to_vec(),
        };
        let value = vec![Value { tag: name.into(), content: Some(Content::Image(image)) }];
        self.write(step, unix_s, What::Summary(Summary { value }))
    }

    pub(super) fn flush(&mut self) -> Result<(), MetricsError> {
        self.file.flush().map_err(MetricsError::write(&self.path))
    }

    fn write(&mut self, step: u64, unix_s: f64, what: What) -> Result<(), MetricsError> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.encoded.clear();
        let event = Event { wall_time: unix_s, step, what: Some(what) };
        event.encode(&mut self.encoded).expect("a vector grows as far as it must");
        write_record(&mut self.file, &self.encoded).map_err(MetricsError::write(&self.path))
    }
}

/// The event files of a folder, in the order in which TensorBoard reads them: by name.
fn event_files(folder: &Path) -> Result<Vec<PathBuf>, MetricsError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(MetricsError::read(folder))? {
        let path = entry.map_err(MetricsError::read(folder))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A name that sorts behind that of `last`, even if the clock went back.
fn next_name(last: Option<&PathBuf>, unix_s: f64) -> String {
    let stamp = |path: &PathBuf| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let digits = name.strip_prefix(PREFIX)?;
        digits.split('.').next()?.parse::<u64>().ok()
    };
    let after = last.and_then(stamp).map_or(0, |second| second.saturating_add(1));
    format!("{PREFIX}{:010}.dinov2", after.max(unix_s as u64))
}

/// Ends an event file before its first event of a step after `step`, or where it was cut short.
fn cut_back(path: &Path, step: u64) -> Result<(), MetricsError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(MetricsError::write(path))?;
    let mut reader = BufReader::new(&file);
    let (mut kept, mut content) = (0, Vec::new());
    while let Some(bytes) = read_record(&mut reader, &mut content).map_err(MetricsError::read(path))? {
        let event = Event::decode(&content[..]).ok();
        if event.is_none_or(|event| u64::try_from(event.step).is_ok_and(|told| told > step)) {
            break;
        }
        kept += bytes;
    }
    file.set_len(kept).map_err(MetricsError::write(path))
}
