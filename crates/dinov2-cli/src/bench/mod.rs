//! `bench`: latency per frame and per stage of the engine, start-up time and memory, on a synthetic frame.

#[cfg(feature = "wgpu")]
mod gpu_peak;
mod peak;

use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::{Context, bail};
use dinov2_edge::io::{Fit, Frame, Size, SourceOptions, open};
use dinov2_edge::{Engine, Extractor, Features, PatchGrid, SelectedEngine, Taps};
use serde_json::{Map, Value, json};

use self::peak::PeakReport;
use super::args::EngineArgs;
use crate::machine;
use dinov2_core::statistics::{quantile, sorted};

/// Maximum of `--iterations` and `--warmup`.
const MAX_ITERATIONS: u32 = 1_000_000;

/// Maximum of `--batch`.
const MAX_BATCH: i64 = 256;

/// Maximum number of extra frames with profiling.
const PROFILED_ITERATIONS: u32 = 20;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Frame size: SIDE (square) or WIDTHxHEIGHT
    #[arg(long, default_value = "224")]
    size: Size,
    /// Number of timed frames
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ITERATIONS)))]
    iterations: u32,
    /// Number of untimed frames before
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_ITERATIONS)))]
    warmup: u32,
    /// Frames per call, as with several cameras; results are per frame
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_BATCH))]
    batch: u32,
    /// Also measure the peak performance of the device and the share of it that each stage reaches
    #[arg(long)]
    peak: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Samples in milliseconds.
#[derive(Default)]
struct Samples {
    frame: Vec<f64>,
    /// Per stage of the engine, in order of execution.
    stages: Vec<(&'static str, Vec<f64>)>,
}

impl Samples {
    fn push_stages(&mut self, stages: impl Iterator<Item = (&'static str, f64)>) {
        for (name, value) in stages {
            match self.stages.iter_mut().find(|(known, _)| *known == name) {
                Some((_, samples)) => samples.push(value),
                None => self.stages.push((name, vec![value])),
            }
        }
    }
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let (width_px, height_px) = match args.size {
        Size::Short(side) => (side, side),
        Size::Exact { width_px, height_px } => (width_px, height_px),
        Size::Native => bail!(super::usage("size: expected SIDE or WIDTHxHEIGHT, got native")),
    };
    let start = Instant::now();
    let (weights, mut engine) = args.engine.load()?;
    let load_ms = milliseconds(start);
    let mut fit =
        Fit::new(Size::Exact { width_px, height_px }, engine.spec().patch_size).map_err(super::usage)?;
    let mut frame = Frame::new();
    let mut source = open(&[format!("test:{width_px}x{height_px}")], &SourceOptions::default())?;
    source.next_frame(&mut frame)?.then_some(()).context("test pattern: expected a frame, got none")?;

    let mut features = vec![Features::new(); args.batch as usize];
    let first = Instant::now();
    time_batch(&mut engine, &mut fit, &frame, &mut features)?;
    let first_frame_ms = milliseconds(first);
    for _ in 0..args.warmup {
        time_batch(&mut engine, &mut fit, &frame, &mut features)?;
    }
    let mut samples = Samples::default();
    let cpu_before = machine::cpu_time();
    for _ in 0..args.iterations {
        let (frame_ms, fit_ms) = time_batch(&mut engine, &mut fit, &frame, &mut features)?;
        samples.frame.push(frame_ms);
        samples.push_stages(std::iter::once(("fit", fit_ms)).chain(stages_per_frame(&engine, args.batch)));
    }
    let cpu_time = machine::cpu_time().zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    let frames = f64::from(args.iterations) * f64::from(args.batch);
    // Where profiling slows the engine down, stages are measured on extra frames.
    if engine.set_profiling(true) {
        for _ in 0..args.iterations.min(PROFILED_ITERATIONS) {
            time_batch(&mut engine, &mut fit, &frame, &mut features)?;
            // In a batch, only the last frame is profiled.
            samples.push_stages(stages_per_frame(&engine, 1));
        }
    }
    let facts = json!({
        "model": weights.label(),
        "shape": engine.spec().name(),
        "backend": engine.facts().backend,
        "precision": engine.facts().precision,
        "engine": engine.to_string(),
        "threads": engine.facts().threads.map_or(1, NonZeroUsize::get),
        "size_px": [width_px, height_px],
        "tokens": engine.spec().tokens(features[0].grid()),
        "batch": args.batch,
        "iterations": args.iterations,
        "load_ms": load_ms,
        "first_frame_ms": first_frame_ms,
        "cpu_ms": cpu_time.map(|time| time.as_secs_f64() * 1e3 / frames),
        "peak_memory_mib": machine::peak_memory_bytes().map(|bytes| bytes as f64 / f64::from(1 << 20)),
        "cpu": machine::cpu_model(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let peak =
        if args.peak { Some(Peak::measure(&engine, features[0].grid(), &samples.stages)?) } else { None };
    match (args.json, peak) {
        (true, peak) => print_json(facts, samples, peak),
        (false, Some(peak)) => print_table(&facts, samples).and_then(|()| peak.print()),
        (false, None) => print_table(&facts, samples),
    }
}

/// Peak performance of the device that the engine runs on, and what the stages reach.
enum Peak {
    Cpu(PeakReport),
    #[cfg(feature = "wgpu")]
    Gpu(gpu_peak::GpuPeakReport),
}

impl Peak {
    fn measure(
        engine: &SelectedEngine,
        grid: PatchGrid,
        stages: &[(&'static str, Vec<f64>)],
    ) -> anyhow::Result<Self> {
        #[cfg(feature = "wgpu")]
        if let Some(engine) = engine.downcast_ref::<dinov2_edge::gpu::WgpuEngine>() {
            return gpu_peak::GpuPeakReport::measure(engine, grid, stages).map(Self::Gpu);
        }
        Ok(Self::Cpu(PeakReport::measure(engine, grid, stages)))
    }

    fn peaks_json(&self) -> Value {
        match self {
            Self::Cpu(report) => report.peaks_json(),
            #[cfg(feature = "wgpu")]
            Self::Gpu(report) => report.peaks_json(),
        }
    }

    fn rates_json(&self) -> Value {
        match self {
            Self::Cpu(report) => report.rates_json(),
            #[cfg(feature = "wgpu")]
            Self::Gpu(report) => report.rates_json(),
        }
    }

    fn print(&self) -> anyhow::Result<()> {
        match self {
            Self::Cpu(report) => report.print(),
            #[cfg(feature = "wgpu")]
            Self::Gpu(report) => report.print(),
        }
    }
}

/// Time of the last call in each stage, in milliseconds per frame.
fn stages_per_frame(engine: &SelectedEngine, batch: u32) -> impl Iterator<Item = (&'static str, f64)> {
    engine
        .stage_times()
        .into_iter()
        .map(move |(name, time)| (name, time.as_secs_f64() * 1e3 / f64::from(batch)))
}

/// Times fit and extraction of a batch of `features.len()` frames: `(both, fit alone)` in milliseconds per frame.
fn time_batch(
    engine: &mut SelectedEngine,
    fit: &mut Fit,
    frame: &Frame,
    features: &mut [Features],
) -> anyhow::Result<(f64, f64)> {
    let frames = features.len() as f64;
    let start = Instant::now();
    let image = fit.fit(frame.view())?;
    let fit_ms = milliseconds(start);
    let start = Instant::now();
    match features {
        [features] => engine.extract(image, &Taps::none(), features)?,
        many => engine.extract_batch(&vec![image; many.len()], &Taps::none(), many)?,
    }
    // The batch shares one fit; with cameras, each frame would need its own.
    Ok((milliseconds(start) / frames + fit_ms, fit_ms))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn print_json(mut facts: Value, samples: Samples, peak: Option<Peak>) -> anyhow::Result<()> {
    let stages: Map<String, Value> =
        samples.stages.into_iter().map(|(name, values)| (name.to_string(), latency_json(values))).collect();
    facts["latency_ms"] = latency_json(samples.frame);
    facts["stage_ms"] = Value::Object(stages);
    if let Some(peak) = peak {
        facts["peak"] = peak.peaks_json();
        facts["stage_rate"] = peak.rates_json();
    }
    writeln!(std::io::stdout().lock(), "{facts}")?;
    Ok(())
}

fn print_table(facts: &Value, samples: Samples) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    for key in ["model", "shape", "engine", "size_px", "tokens", "batch", "cpu"] {
        writeln!(stdout, "{key:<12} {}", super::plain(&facts[key]))?;
    }
    for key in ["load_ms", "first_frame_ms", "cpu_ms", "peak_memory_mib"] {
        writeln!(stdout, "{key:<16} {:>9.1}", facts[key].as_f64().unwrap_or(f64::NAN))?;
    }
    writeln!(stdout, "{:<16} {:>9} {:>9} {:>9}", "ms", "min", "median", "p95")?;
    let rows = std::iter::once(("frame", samples.frame)).chain(samples.stages);
    for (name, values) in rows {
        let values = sorted(values);
        let [min, median, p95] = [0.0, 0.5, 0.95].map(|share| quantile(&values, share));
        writeln!(stdout, "{name:<16} {min:>9.3} {median:>9.3} {p95:>9.3}")?;
    }
    Ok(())
}

/// `{min, median, p95}` in milliseconds.
fn latency_json(samples_ms: Vec<f64>) -> Value {
    let sorted = sorted(samples_ms);
    let round = |value: f64| (value * 1e4).round() / 1e4;
    json!({
        "min": round(quantile(&sorted, 0.0)),
        "median": round(quantile(&sorted, 0.5)),
        "p95": round(quantile(&sorted, 0.95)),
    })
}
