//! Unreadable data of a task: left out, reported, and noted beside the figures.

use std::path::Path;

use dinov2_files::chain;

use super::{EvalError, LoadedModel};
use crate::progress::note;

/// Unreadable items of a part of a task's data.
pub(super) struct Skipped {
    task: &'static str,
    /// Unit of the items, in the plural.
    unit: &'static str,
    total: usize,
    names: Vec<String>,
    /// The first error.
    first: Option<EvalError>,
}

impl Skipped {
    /// For `total` items of `unit`.
    pub(super) fn new(task: &'static str, unit: &'static str, total: usize) -> Self {
        Self { task, unit, total, names: Vec::new(), first: None }
    }

    /// Skips the item of this path and reports why, if a file is unreadable. Returns any other error.
    pub(super) fn add(&mut self, path: &Path, error: EvalError) -> Result<(), EvalError> {
        if !matches!(error, EvalError::Unreadable(_)) {
            return Err(error);
        }
        note(&format!("skipped: {}", chain(&error)));
        let name = path.file_name().unwrap_or(path.as_os_str());
        self.names.push(name.to_string_lossy().into_owned());
        self.first.get_or_insert(error);
        Ok(())
    }

    /// # Errors
    /// All items are unreadable.
    pub(super) fn check(&self) -> Result<(), EvalError> {
        if self.names.len() < self.total {
            return Ok(());
        }
        let why = self.first.as_ref().map(|error| format!(": {}", chain(error))).unwrap_or_default();
        Err(EvalError::input(self.task, format!("{} that can be read", self.unit), format!("none{why}")))
    }

    /// Reports what was left out, and notes it for the table.
    ///
    /// # Errors
    /// All items are unreadable.
    pub(super) fn finish(self, model: &mut LoadedModel) -> Result<(), EvalError> {
        self.check()?;
        if let Some(line) = self.line() {
            note(&line);
            model.note(line);
        }
        Ok(())
    }

    fn line(&self) -> Option<String> {
        let Self { task, unit, total, names, .. } = self;
        let first = names.first()?;
        let (were, more) = match names.len() {
            1 => ("was", String::new()),
            count => ("were", format!(" (+ {} more)", count - 1)),
        };
        Some(format!(
            "{task}: {} of {total} {unit} could not be read and {were} left out: {first}{more}",
            names.len()
        ))
    }
}
