//! The report as Markdown tables. It is written anew after each measurement, so that an interrupted run leaves what it has.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

/// Two runs of `bench --json`.
pub(super) struct Speed {
    /// With empty caches.
    pub(super) cold: Value,
    /// With the caches of the first, and the device's peaks.
    pub(super) warm: Value,
}

/// The tables, as they grow.
pub(super) struct Report {
    path: PathBuf,
    date: String,
    machine: String,
    parity: String,
    speed: String,
    peaks: String,
    stages: String,
    training: String,
}

impl Report {
    pub(super) fn new(path: PathBuf, date: &str, doctor: Result<String>) -> Self {
        let machine = doctor.unwrap_or_else(|error| format!("{error:#}"));
        let [parity, speed, peaks, stages, training] = Default::default();
        Self { path, date: date.trim().to_owned(), machine, parity, speed, peaks, stages, training }
    }

    /// Writes the tables as far as they are.
    pub(super) fn save(&self) -> Result<()> {
        fs::write(&self.path, self.markdown()).with_context(|| self.path.display().to_string())
    }

    pub(super) fn parity(&mut self, precision: &str, reference: &str, compared: Result<Value>) {
        let cells = match compared {
            Ok(report) => {
                let cosine = |share: &str| number(&report["patch_cosine"][share], 6);
                format!("{} | {} | {} | {}", report["images"], cosine("median"), cosine("p5"), cosine("min"))
            }
            Err(error) => format!("{} | | |", cell(&error)),
        };
        line(&mut self.parity, &format!("| {precision} | {reference} | {cells} |"));
    }

    pub(super) fn speed(&mut self, precision: &str, size: &str, measured: Result<Speed>) {
        let Speed { cold, warm } = match measured {
            Ok(measured) => measured,
            Err(error) => {
                line(&mut self.speed, &format!("| {size} | {precision} | {} | | | | |", cell(&error)));
                return;
            }
        };
        let latency = |share: &str| number(&warm["latency_ms"][share], 3);
        line(
            &mut self.speed,
            &format!(
                "| {size} | {precision} | {} | {} | {} | {} | {} |",
                number(&cold["first_frame_ms"], 1),
                number(&warm["first_frame_ms"], 1),
                latency("median"),
                latency("p95"),
                number(&warm["cpu_ms"], 3),
            ),
        );
        for (stage, rate) in warm["stage_rate"].as_object().into_iter().flatten() {
            let percent =
                |key: &str| rate[key].as_f64().map_or("".into(), |share| format!("{:.1}", 100.0 * share));
            let ms = number(&warm["stage_ms"][stage]["median"], 3);
            let (peak, copy) = (percent("share_of_peak"), percent("share_of_copy"));
            line(&mut self.stages, &format!("| {size} | {precision} | {stage} | {ms} | {peak} | {copy} |"));
        }
        let peaks = warm["peak"].as_object().into_iter().flatten().filter(|(_, peak)| peak.is_number());
        let peaks: Vec<_> = peaks.map(|(name, peak)| format!("{name} {}", number(peak, 1))).collect();
        line(&mut self.peaks, &format!("| {size} | {precision} | {} |", peaks.join(", ")));
    }

    pub(super) fn training(&mut self, name: &str, words: &[&str], printed: Result<String>) {
        let result = match printed {
            Ok(text) => text.trim().replace('\n', "; "),
            Err(error) => cell(&error),
        };
        line(&mut self.training, &format!("| `{name} {}` | {result} |", words.join(" ")));
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# GPU report, {}, version {}\n\n```\n{}\n```\n",
            self.date,
            env!("CARGO_PKG_VERSION"),
            self.machine.trim_end()
        );
        let mut table = |title: &str, head: &str, rows: &str| {
            if !rows.is_empty() {
                let rule = "---|".repeat(head.matches('|').count() - 1);
                let _ = write!(text, "\n## {title}\n\n{head}\n|{rule}\n{rows}");
            }
        };
        table(
            "Parity on the sample photographs, cosine of patches",
            "| precision | against | images | median | p5 | min |",
            &self.parity,
        );
        table(
            "Speed, ms",
            "| size | precision | first frame, empty caches | first frame, full caches | median | p95 | CPU time a frame |",
            &self.speed,
        );
        table(
            "Stages",
            "| size | precision | stage | ms | % of the arithmetic's peak | % of a copy's |",
            &self.stages,
        );
        table("Peaks of the device", "| with the run at | precision | |", &self.peaks);
        table("Training", "| command | |", &self.training);
        text
    }
}

fn line(text: &mut String, row: &str) {
    text.push_str(row);
    text.push('\n');
}

/// A number with so many decimals; empty for other values.
fn number(value: &Value, decimals: usize) -> String {
    value.as_f64().map_or(String::new(), |value| format!("{value:.decimals$}"))
}

/// An error in one cell.
fn cell(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('|', "/").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_and_failures_stand_in_tables() {
        let mut report = Report::new(PathBuf::new(), "today\n", Ok("gpus one".into()));
        let cosines = json!({"images": 3, "patch_cosine": {"median": 0.99999951, "p5": 0.9, "min": 0.5}});
        report.parity("f16", "cpu:f32", Ok(cosines));
        report.parity("f32", "cpu:f32", Err(anyhow!("no GPU | none\nat all")));
        let cold = json!({"first_frame_ms": 812.34});
        let warm = json!({
            "first_frame_ms": 20.0, "latency_ms": {"median": 1.5, "p95": 2.0}, "cpu_ms": 0.25,
            "peak": {"f32_gflops": 60000.0, "f16_gflops": null},
            "stage_ms": {"mlp": {"median": 0.4}},
            "stage_rate": {"mlp": {"share_of_peak": 0.75, "share_of_copy": 0.1}},
        });
        report.speed("f16", "224", Ok(Speed { cold, warm }));
        report.training("step_time", &["12", "64"], Ok("training: 1 s\n".into()));
        let text = report.markdown();
        for row in [
            "| f16 | cpu:f32 | 3 | 1.000000 | 0.900000 | 0.500000 |",
            "| f32 | cpu:f32 | no GPU / none at all | | | |",
            "| 224 | f16 | 812.3 | 20.0 | 1.500 | 2.000 | 0.250 |",
            "| 224 | f16 | mlp | 0.400 | 75.0 | 10.0 |",
            "| 224 | f16 | f32_gflops 60000.0 |",
            "# GPU report, today, version 0.1.0",
            "| `step_time 12 64` | training: 1 s |",
        ] {
            assert!(text.lines().any(|line| line == row), "{row}\n{text}");
        }
    }
}
