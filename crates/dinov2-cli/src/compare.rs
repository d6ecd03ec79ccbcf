//! `compare`: features of two engines on the same images; cosines, relative error and latencies.

use std::ffi::OsString;
use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::{Context, bail};
use dinov2_edge::io::{Fit, Frame, Size, SourceOptions, open};
use dinov2_edge::{Engine, Extractor, Features, ImageView, SelectedEngine, Taps};
use serde_json::{Value, json};

use crate::args::{ReuseArgs, source_of};
use crate::engine_choice::EngineChoice;
use crate::progress;
use dinov2_core::statistics::{cosine, quantile, sorted};

/// Arguments of `compare`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Images, folders or globs
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<OsString>,
    /// Reference: [MODEL:]BACKEND:PRECISION
    #[arg(long, default_value = "cpu:f32")]
    reference: EngineChoice,
    /// Candidate, compared with the reference: [MODEL:]BACKEND:PRECISION
    #[arg(long)]
    candidate: EngineChoice,
    /// Image size, as in `run`
    #[arg(long, default_value = "224")]
    size: Size,
    /// Stop after this many images
    #[arg(long)]
    frames: Option<usize>,
    /// Number of threads [default: one per available core, limited by the CPU quota]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    reuse: ReuseArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let mut reference = args.reference.load(None, args.threads).context("reference")?;
    let mut candidate =
        args.candidate.load_incremental(args.threads, args.reuse.config()).context("candidate")?;
    let (left, right) = (reference.spec().clone(), candidate.spec().clone());
    if (left.dim, left.patch_size, left.registers) != (right.dim, right.patch_size, right.registers) {
        bail!(
            "compare: expected the same dim, patch size and registers, got {} and {}",
            left.name(),
            right.name()
        );
    }
    let mut fit = Fit::new(args.size, left.patch_size).map_err(crate::usage)?;
    let mut source = open(&args.inputs, &SourceOptions::default())?;
    let bar = progress::counter(source.len_hint().map(|len| len as u64), "images");
    let (mut frame, mut want, mut got) = (Frame::new(), Features::new(), Features::new());
    let (mut patch_cosines, mut cls_cosines, mut images) = (Vec::new(), Vec::new(), 0usize);
    let (mut reference_ms, mut candidate_ms, mut recomputed) = (Vec::new(), Vec::new(), Vec::new());
    let mut squares = (0.0f64, 0.0f64);
    while args.frames.is_none_or(|most| images < most) && source.next_frame(&mut frame)? {
        let image = fit.fit(frame.view()).with_context(|| source_of(&frame))?;
        reference_ms.push(timed_extract(&mut reference, image, &mut want)?);
        candidate_ms.push(timed_extract(&mut candidate, image, &mut got)?);
        recomputed.extend(candidate.recomputed_share());
        let rows = want.patches().chunks_exact(left.dim).zip(got.patches().chunks_exact(left.dim));
        patch_cosines.extend(rows.map(|(want, got)| cosine(want, got)));
        cls_cosines.push(cosine(want.cls(), got.cls()));
        for (&want, &got) in want.tokens().iter().zip(got.tokens()) {
            squares.0 += (f64::from(want) - f64::from(got)).powi(2);
            squares.1 += f64::from(want).powi(2);
        }
        images += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if images == 0 {
        bail!("compare: expected at least one image, got none");
    }
    let report = json!({
        "reference": args.reference.to_string(),
        "candidate": args.candidate.to_string(),
        "size": args.size.to_string(),
        "images": images,
        "patches": patch_cosines.len(),
        "patch_cosine": summary(patch_cosines),
        "cls_cosine": summary(cls_cosines),
        "relative_l2": (squares.0 / squares.1).sqrt(),
        "reference_ms": latency(reference_ms),
        "candidate_ms": latency(candidate_ms),
        "recomputed": mean(&recomputed),
    });
    print(&report, args.json)
}

/// Extracts features; returns the time in milliseconds.
fn timed_extract(
    engine: &mut SelectedEngine,
    image: ImageView<'_>,
    out: &mut Features,
) -> anyhow::Result<f64> {
    let start = Instant::now();
    engine.extract(image, &Taps::none(), out)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// `None` without samples.
fn mean(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
}

fn latency(samples_ms: Vec<f64>) -> Value {
    let mean = mean(&samples_ms);
    let sorted = sorted(samples_ms);
    json!({ "mean": mean, "median": quantile(&sorted, 0.5), "p95": quantile(&sorted, 0.95) })
}

fn print(report: &Value, as_json: bool) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if as_json {
        writeln!(stdout, "{report}")?;
        return Ok(());
    }
    let [candidate, reference, size] =
        ["candidate", "reference", "size"].map(|key| crate::plain(&report[key]));
    writeln!(stdout, "{candidate} against {reference}")?;
    writeln!(stdout, "{} images, {} patches, size {size}", report["images"], report["patches"])?;
    for key in ["patch_cosine", "cls_cosine"] {
        let [median, p5, p1, min] =
            ["median", "p5", "p1", "min"].map(|share| report[key][share].as_f64().unwrap_or(f64::NAN));
        writeln!(stdout, "{key:<13} median {median:.6}  p5 {p5:.6}  p1 {p1:.6}  min {min:.6}")?;
    }
    writeln!(stdout, "relative_l2   {:.3e}", report["relative_l2"].as_f64().unwrap_or(f64::NAN))?;
    for key in ["candidate_ms", "reference_ms"] {
        let [mean, median, p95] =
            ["mean", "median", "p95"].map(|which| report[key][which].as_f64().unwrap_or(f64::NAN));
        writeln!(stdout, "{key:<13} mean {mean:.1}  median {median:.1}  p95 {p95:.1}")?;
    }
    if let Some(share) = report["recomputed"].as_f64() {
        writeln!(stdout, "recomputed    {:.1} % of rows", share * 100.0)?;
    }
    Ok(())
}

fn summary(samples: Vec<f64>) -> Value {
    let sorted = sorted(samples);
    let at = |share| quantile(&sorted, share);
    json!({ "median": at(0.5), "p5": at(0.05), "p1": at(0.01), "min": at(0.0) })
}
