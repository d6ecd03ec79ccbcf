//! The sink that writes a recording.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use dinov2_files::chain;
use dinov2_io::{LiveStats, Recorded, Recording, RecordingMeta, SinkError};

use super::{FeatureFrame, Sink, SinkFailure, Wants};

/// Writes frames, features, outputs and statistics into a recording. If the disk fails or is full, the recording ends and the run
/// continues, so that a robot keeps its features. The failure is a note at once and an error at the end.
pub struct RecordingSink {
    recording: Option<Recording>,
    heads: Vec<String>,
    failure: Option<SinkError>,
    notes: Vec<String>,
}

impl RecordingSink {
    /// Creates the file. `heads`: names of the heads to record.
    ///
    /// # Errors
    /// As [`Recording::create`].
    pub fn create(path: &Path, meta: &RecordingMeta, heads: Vec<String>) -> Result<Self, SinkError> {
        let recording = Some(Recording::create(path, meta)?);
        Ok(Self { recording, heads, failure: None, notes: Vec::new() })
    }

    fn write(&mut self, write: impl FnOnce(&mut Recording) -> Result<(), SinkError>) {
        if let Some(Err(error)) = self.recording.as_mut().map(write) {
            self.notes
                .push(format!("the recording has ended and the run goes on without it: {}", chain(&error)));
            self.failure = Some(error);
            // The file is readable up to here; a summary could not be written.
            self.recording = None;
        }
    }
}

impl Sink for RecordingSink {
    fn name(&self) -> &'static str {
        "recording"
    }

    fn wants(&self) -> Wants {
        Wants::heads(&self.heads)
    }

    fn take(&mut self, frame: &FeatureFrame) -> Result<(), SinkFailure> {
        let outputs = frame.outputs.of(&self.heads);
        let recorded = Recorded {
            camera: frame.camera,
            frame: &frame.frame,
            jpeg: None,
            crop: frame.crop,
            features: &frame.features,
            outputs: &outputs,
            latency_ms: Some(frame.times.latency.as_secs_f32() * 1e3),
        };
        self.write(|recording| recording.write(&recorded));
        Ok(())
    }

    fn take_stats(&mut self, stats: &LiveStats) -> Result<(), SinkFailure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.write(|recording| recording.write_stats(stats, unix_ns));
        Ok(())
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn finish(&mut self) -> Result<(), SinkFailure> {
        if let Some(recording) = self.recording.take() {
            recording.finish()?;
        }
        self.failure.take().map_or(Ok(()), |failure| Err(failure.into()))
    }
}
