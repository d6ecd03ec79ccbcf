//! Metrics of a run: numbers and pictures on disk.
//!
//! [`Metrics`] writes numbers and pictures into the folder of a run: `metrics.jsonl` (an object per step), TensorBoard events
//! (`tensorboard/events.out.tfevents.…`) and pictures (`pictures/NAME-STEP.png`). [`contact_sheet`] draws images beside the
//! principal components of the teacher's and the student's features.
//!
//! Steps ascend. A resumed run continues the same files, truncated to its first step, so that they read
//! like those of an uninterrupted run. Nothing is averaged, and nothing is sent anywhere.

mod contact_sheet;
mod error;
mod events;
mod jsonl;
mod messages;
mod records;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub use contact_sheet::{MAX_SHEET_ROWS, PatchFeatures, SheetError, SheetRow, contact_sheet};
pub use error::MetricsError;

use events::EventFile;
use jsonl::JsonLines;

use crate::files::write_bytes;

/// Longest name of a number or a picture, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Keys that every line of `metrics.jsonl` has.
const OWN_NAMES: [&str; 2] = ["step", "unix_s"];

/// Writer of a run's numbers and pictures.
#[derive(Debug)]
pub struct Metrics {
    pictures: PathBuf,
    lines: JsonLines,
    events: EventFile,
    /// Numbers of [`Self::step`] that are not written yet, in order of arrival.
    pending: Vec<(String, f64)>,
    /// The current step.
    step: u64,
}

impl Metrics {
    /// Opens `folder`, creating it if missing. `resume_step`: `None` for a new run; otherwise entries of later
    /// steps are removed, together with a last entry that is incomplete.
    ///
    /// # Errors
    /// A new run in the folder of another, a file of another program, or an error of the system.
    pub fn create(folder: &Path, resume_step: Option<u64>) -> Result<Self, MetricsError> {
        let (pictures, events) = (folder.join("pictures"), folder.join("tensorboard"));
        fs::create_dir_all(&events).map_err(MetricsError::write(&events))?;
        let lines = JsonLines::open(folder.join("metrics.jsonl"), resume_step)?;
        let events = EventFile::open(&events, resume_step, unix_s())?;
        Ok(Self { pictures, lines, events, pending: Vec::new(), step: resume_step.unwrap_or(0) })
    }

    /// Records a number of a step; a later value of the same name replaces it. It is on disk after the next [`Self::flush`].
    ///
    /// # Errors
    /// A step before the last one, a name that cannot stand in the files, or what the system refuses to write.
    pub fn scalar(&mut self, step: u64, name: &str, value: f64) -> Result<(), MetricsError> {
        check_name(name)?;
        self.advance(step)?;
        match self.pending.iter_mut().find(|(told, _)| told == name) {
            Some((_, told)) => *told = value,
            None => self.pending.push((name.into(), value)),
        }
        Ok(())
    }

    /// Records a picture of a step, in the TensorBoard events and as a file. `png`: a whole PNG file.
    ///
    /// # Errors
    /// As [`Self::scalar`], and bytes that are no PNG.
    pub fn image(&mut self, step: u64, name: &str, png: &[u8]) -> Result<(), MetricsError> {
        check_name(name)?;
        let size = size_of_png(png).ok_or_else(|| MetricsError::Picture { name: name.into() })?;
        self.advance(step)?;
        fs::create_dir_all(&self.pictures).map_err(MetricsError::write(&self.pictures))?;
        let path = self.pictures.join(format!("{}-{step:08}.png", name.replace(['/', '\\'], "_")));
        write_bytes(&path, png).map_err(MetricsError::write(&path))?;
        self.events.image(step, unix_s(), name, png, size)
    }

    /// Writes everything recorded up to `step` to the files.
    ///
    /// # Errors
    /// A step before the last one, or what the system refuses to write.
    pub fn flush(&mut self, step: u64) -> Result<(), MetricsError> {
        self.advance(step)?;
        self.write_pending()?;
        self.events.flush()
    }

    fn advance(&mut self, step: u64) -> Result<(), MetricsError> {
        if step < self.step {
            return Err(MetricsError::Step { least: self.step, got: step });
        }
        if step > self.step {
            self.write_pending()?;
            self.step = step;
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), MetricsError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let unix_s = unix_s();
        self.lines.write(self.step, unix_s, &self.pending)?;
        self.events.scalars(self.step, unix_s, &self.pending)?;
        self.pending.clear();
        Ok(())
    }
}

/// A name that is a key in JSON, a tag in TensorBoard and, without its slashes, part of a file's name.
fn check_name(name: &str) -> Result<(), MetricsError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./ ".contains(&byte);
    let sound = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain);
    if sound && !name.starts_with('.') && !OWN_NAMES.contains(&name) {
        Ok(())
    } else {
        Err(MetricsError::Name { got: name.chars().take(MAX_NAME_BYTES).collect() })
    }
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Width and height as the header of a PNG states them.
fn size_of_png(png: &[u8]) -> Option<(u32, u32)> {
    let reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().ok()?;
    Some((reader.info().width, reader.info().height))
}

#[cfg(test)]
mod tests;
