//! The sink that writes output files, and a line per frame to stdout.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dinov2_core::HeadOutput;
use dinov2_edge::io::{FeatureMeta, Output};
use dinov2_edge::pipeline::{FeatureFrame, Sink, SinkFailure, Wants};
use dinov2_files::{hex_unless_utf8, shown};
use indicatif::ProgressBar;
use serde_json::{Value, json};

/// Writes a file and a line of stdout per frame.
pub(super) struct Results {
    pub(super) output: Option<Output>,
    /// Names of the heads whose outputs are written.
    pub(super) heads: Vec<String>,
    pub(super) meta: FeatureMeta,
    pub(super) lines: FrameLines,
    pub(super) bar: ProgressBar,
}

/// What is printed per frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameLines {
    /// A line of text.
    Text,
    /// A JSON object.
    Json,
    /// Nothing, for live sources: they would fill the log.
    None,
}

impl Sink for Results {
    fn name(&self) -> &'static str {
        "output"
    }

    fn wants(&self) -> Wants {
        let shows = self.output.is_some() || self.lines == FrameLines::Json;
        if shows { Wants::heads(&self.heads) } else { Wants::nothing() }
    }

    fn take(&mut self, frame: &FeatureFrame) -> Result<(), SinkFailure> {
        let start = Instant::now();
        let outputs = frame.outputs.of(&self.heads);
        let (image, features) = (frame.image(), &frame.features);
        let write = |output: &mut Output| output.write(&frame.frame, image, features, &outputs, &self.meta);
        let written = self.output.as_mut().map(write).transpose()?;
        let write = start.elapsed();
        let line = match self.lines {
            FrameLines::Text => text_line(frame, write, written),
            FrameLines::Json => json_line(frame, &outputs, write, written),
            FrameLines::None => return Ok(()),
        };
        let print = || writeln!(std::io::stdout().lock(), "{line}");
        // A progress bar on the same terminal would overwrite the line.
        if std::io::stdout().is_terminal() {
            self.bar.suspend(print)?
        } else {
            print()?
        }
        self.bar.inc(1);
        Ok(())
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn sum_ms(frame: &FeatureFrame, write: Duration) -> f64 {
    milliseconds(frame.times.read + frame.times.fit + frame.times.extract + write)
}

fn text_line(frame: &FeatureFrame, write: Duration, written: Option<PathBuf>) -> String {
    let to = written.map(|path| format!(" -> {}", shown(path))).unwrap_or_default();
    format!(
        "{}: {} patches of {}x{} px, dim {}, {:.1} ms (extract {:.1}){to}",
        frame.frame.name,
        frame.features.grid(),
        frame.fitted_px.0,
        frame.fitted_px.1,
        frame.features.dim(),
        sum_ms(frame, write),
        milliseconds(frame.times.extract)
    )
}

fn json_line(
    frame: &FeatureFrame,
    outputs: &[(&str, &HeadOutput)],
    write: Duration,
    written: Option<PathBuf>,
) -> String {
    let (times, grid) = (&frame.times, frame.features.grid());
    let mut line = json!({
        "frame": frame.number,
        "camera": frame.camera,
        "name": frame.frame.name,
        "source": frame.frame.path.as_deref().map(Path::to_string_lossy),
        "capture_ns": frame.frame.capture_ns,
        "size_px": [frame.fitted_px.0, frame.fitted_px.1],
        "grid": { "rows": grid.rows, "cols": grid.cols },
        "dim": frame.features.dim(),
        "latency_ms": {
            "read": milliseconds(times.read),
            "fit": milliseconds(times.fit),
            "extract": milliseconds(times.extract),
            "write": milliseconds(write),
            "total": sum_ms(frame, write),
            "to_features": milliseconds(times.latency),
        },
        "output": written.as_deref().map(Path::to_string_lossy),
    });
    for (key, path) in [("source_hex", frame.frame.path.as_deref()), ("output_hex", written.as_deref())] {
        if let Some(hex) = path.and_then(hex_unless_utf8) {
            line[key] = hex.into();
        }
    }
    if !outputs.is_empty() {
        let outputs = outputs.iter().map(|(name, output)| (name.to_string(), output_json(output)));
        line["heads"] = outputs.collect::<serde_json::Map<_, _>>().into();
    }
    if let Some(share) = frame.recomputed {
        line["recomputed"] = share.into();
    }
    line.to_string()
}

/// An output in a JSON line: scores, vectors and boxes in full; a summary of grids, which are written to files only.
fn output_json(output: &HeadOutput) -> Value {
    let kind = output.kind();
    match output {
        HeadOutput::Score(value) => json!({ "kind": kind, "value": value }),
        HeadOutput::Vector(values) => json!({ "kind": kind, "values": values }),
        HeadOutput::Boxes(boxes) => {
            let boxes = boxes.iter().map(|found| {
                let rect = found.rect;
                let ltwh_px = [rect.left_px, rect.top_px, rect.width_px, rect.height_px];
                json!({ "ltwh_px": ltwh_px, "score": found.score, "class": found.class })
            });
            json!({ "kind": kind, "boxes": boxes.collect::<Vec<_>>() })
        }
        HeadOutput::Map { grid, values } => {
            let finite = || values.iter().copied().filter(|value| value.is_finite());
            let mean = finite().map(f64::from).sum::<f64>() / finite().count() as f64;
            json!({
                "kind": kind,
                "grid": { "rows": grid.rows, "cols": grid.cols },
                "min": finite().reduce(f32::min),
                "mean": mean,
                "max": finite().reduce(f32::max),
            })
        }
        HeadOutput::Mask { grid, classes } => {
            let mut present: Vec<u8> = classes.clone();
            present.sort_unstable();
            present.dedup();
            json!({ "kind": kind, "grid": { "rows": grid.rows, "cols": grid.cols }, "classes": present })
        }
        HeadOutput::Colours { grid, .. } => {
            json!({ "kind": kind, "grid": { "rows": grid.rows, "cols": grid.cols } })
        }
    }
}
