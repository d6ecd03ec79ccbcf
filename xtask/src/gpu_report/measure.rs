//! `cargo xtask gpu-measure`: runs the programs of the report's folder one after the other and collects what they print.
//!
//! Each program and the whole run have a time limit; a program that fails leaves its error in the report, and the run goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::child::output_within;
use super::report::{Report, Speed};

/// Time limit of the whole run.
const LIMIT: Duration = Duration::from_secs(9 * 60);
/// Time limit of one program.
const LIMIT_EACH: Duration = Duration::from_secs(150);

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Sizes and rounds of a report.
    Full,
    /// Small images and a few frames: whether everything works, on a software driver.
    Quick,
}

impl Effort {
    fn sizes(self) -> &'static [&'static str] {
        match self {
            Self::Full => &["224", "518"],
            Self::Quick => &["56"],
        }
    }

    fn precisions(self) -> &'static [&'static str] {
        match self {
            Self::Full => &["f32", "f16", "int8"],
            Self::Quick => &["int8"],
        }
    }

    fn iterations(self) -> &'static str {
        match self {
            Self::Full => "200",
            Self::Quick => "2",
        }
    }
}

/// The programs in a folder, and the time that is left.
struct Session<'a> {
    folder: &'a Path,
    effort: Effort,
    deadline: Instant,
    /// Caches of the program and of drivers, so that a first frame is what it is on a new machine.
    caches: PathBuf,
}

/// Measures with the programs in `folder` and writes `report.md` there. The report gives the reason for what could not be measured.
pub(crate) fn measure(folder: &Path, effort: Effort) -> Result<()> {
    let folder = &fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
    let caches = folder.join("caches");
    let session = Session { folder, effort, deadline: Instant::now() + LIMIT, caches };
    let date = session.output(Command::new("date").args(["-u", "+%F %R UTC"])).unwrap_or_default();
    let mut report = Report::new(folder.join("report.md"), &date, session.doctor());
    for &precision in effort.precisions() {
        let references: &[&str] = if precision == "int8" { &["cpu:f32", "cpu:int8"] } else { &["cpu:f32"] };
        for reference in references {
            eprintln!("==> parity of {precision} with {reference}");
            report.parity(precision, reference, session.parity(precision, reference));
            report.save()?;
        }
    }
    for size in effort.sizes() {
        for precision in effort.precisions() {
            eprintln!("==> speed of {precision} at {size}");
            report.speed(precision, size, session.speed(precision, size));
            report.save()?;
        }
    }
    for (name, words) in training_programs(effort) {
        if folder.join(name).is_file() {
            eprintln!("==> {name}");
            report.training(name, words, session.output(Command::new(folder.join(name)).args(words)));
            report.save()?;
        }
    }
    // Caches that cannot be removed do no harm.
    let _ = fs::remove_dir_all(&session.caches);
    eprintln!("{}", folder.join("report.md").display());
    Ok(())
}

/// A training step, and a teacher's forward pass, with their arguments.
fn training_programs(effort: Effort) -> [(&'static str, &'static [&'static str]); 2] {
    match effort {
        Effort::Full => {
            [("step_time", &["12", "64", "20", "cuda"]), ("teacher_time", &["g", "cuda", "224", "16", "20"])]
        }
        Effort::Quick => [("step_time", &["1", "1", "1"]), ("teacher_time", &["s", "cpu", "56", "1", "1"])],
    }
}

impl Session<'_> {
    fn output(&self, command: &mut Command) -> Result<String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        anyhow::ensure!(!left.is_zero(), "not measured: the {} minutes were over", LIMIT.as_secs() / 60);
        output_within(command.current_dir(self.folder), LIMIT_EACH.min(left))
    }

    fn program(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.folder.join("dinov2-edge"));
        command.args(words);
        for variable in ["XDG_CACHE_HOME", "MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH"] {
            command.env(variable, &self.caches);
        }
        command
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.output(&mut self.program(words))?;
        let last = text.lines().last().context("expected a line of JSON, got none")?;
        serde_json::from_str(last).with_context(|| format!("expected JSON, got {last:?}"))
    }

    fn doctor(&self) -> Result<String> {
        self.output(&mut self.program(&["doctor"]))
    }

    fn parity(&self, precision: &str, reference: &str) -> Result<Value> {
        let candidate = format!("wgpu:{precision}");
        let size = self.effort.sizes()[0];
        self.json(&[
            "compare",
            "photographs",
            "--reference",
            reference,
            "--candidate",
            &candidate,
            "--size",
            size,
            "--json",
        ])
    }

    /// Twice, with empty caches and with those of the first time; the figures but the first frame's are those of the second.
    fn speed(&self, precision: &str, size: &str) -> Result<Speed> {
        match fs::remove_dir_all(&self.caches) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&self.caches)?,
        }
        let bench = ["bench", "--backend", "wgpu", "--precision", precision, "--size", size, "--json"];
        let cold = self.json(&[&bench[..], &["--iterations", "1", "--warmup", "0"]].concat())?;
        let warm =
            self.json(&[&bench[..], &["--iterations", self.effort.iterations(), "--peak"]].concat())?;
        Ok(Speed { cold, warm })
    }
}
