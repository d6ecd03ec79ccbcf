//! `run`: extracts features from cameras or files. Builds sources, engine, heads and sinks from the arguments and runs the pipeline.

mod results;
mod sources;
mod status;
#[cfg(feature = "view")]
mod token;
#[cfg(feature = "view")]
mod view;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use dinov2_edge::heads::{HEADS, HeadChoice};
#[cfg(feature = "record")]
use dinov2_edge::io::RecordingMeta;
use dinov2_edge::io::{FeatureMeta, Format, Output, Size, Source};
#[cfg(feature = "record")]
use dinov2_edge::pipeline::RecordingSink;
#[cfg(feature = "view")]
use dinov2_edge::pipeline::ViewSink;
use dinov2_edge::pipeline::{
    BadInputs, HeadCommands, NamedHead, Pipeline, PipelineConfig, PipelineStop, Sink, Summary,
};
use dinov2_edge::{Engine, Extractor, ModelSource, SelectedEngine, Taps};
use dinov2_files::{Inputs, chain};

use super::args::{EngineArgs, ReuseArgs, model_file, replace};
use super::{progress, usage};
use results::{FrameLines, Results};
use sources::SourceArgs;
use status::Status;

/// The head whose colours the page, recordings and pictures show.
const PCA: &str = "pca";
/// Exit code after SIGINT, as shells report it (128 + 2).
const INTERRUPTED: i32 = 130;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Image size: short SIDE, WIDTHxHEIGHT, or native (largest centred crop, not resampled)
    #[arg(long, default_value = "224")]
    size: Size,
    /// Also extract intermediate features: LAYER, LAYER:norm, LAYER:query, LAYER:key, LAYER:value, cls-attention; layers
    /// count from 0, -1 is the last
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    layers: Option<String>,
    #[arg(long = "head", value_name = "HEAD", value_parser = head, help = head_help())]
    heads: Vec<HeadChoice>,
    /// Output file: .safetensors, .npy or .png (picture of the features beside the image); a folder for several frames
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// File format in an output folder: safetensors, npy or png
    #[arg(long, default_value = "safetensors")]
    format: Format,
    /// Also replace files of other kinds, but never an input
    #[arg(long)]
    force: bool,
    /// Stop at the first input that cannot be used; without this flag it is skipped, and the exit code is 1
    #[arg(long)]
    strict: bool,
    /// Stop after this many frames
    #[arg(long)]
    frames: Option<NonZeroU64>,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// Maximum frames per second; for files by their timestamps, without waiting
    #[arg(long, value_name = "RATE", value_parser = period)]
    fps: Option<Duration>,
    /// Fail if one frame takes longer than this, so that a service manager can restart the program; 0 disables [default: 60 for cameras]
    #[arg(long, value_name = "SECONDS")]
    watchdog: Option<u64>,
    /// Record camera, features and statistics into a new MCAP file, for Foxglove and ROS 2
    #[cfg(feature = "record")]
    #[arg(long, value_name = "FILE.mcap")]
    record: Option<PathBuf>,
    #[cfg(feature = "view")]
    #[command(flatten)]
    view: view::ViewArgs,
    #[command(flatten)]
    reuse: ReuseArgs,
    /// Print one JSON object per frame to stdout
    #[arg(long)]
    json: bool,
}

fn head(word: &str) -> Result<HeadChoice, String> {
    word.parse().map_err(|error| chain(&error))
}

fn head_help() -> String {
    let mut help = String::from(
        "Compute a head: NAME, or NAME:KEY=VALUE,KEY=VALUE; may be repeated. Its outputs go to files, --json lines, the live page and \
         the recording:",
    );
    for kind in HEADS {
        help += &format!("\n  {}: {}", kind.name, kind.summary);
    }
    help
}

/// Maximum of `--duration`: a hundred years.
const MAX_SECONDS: f64 = 3.2e9;

fn seconds(word: &str) -> Result<Duration, String> {
    let seconds = word.parse().ok().filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds) && *seconds > 0.0);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds above 0".into())
}

fn period(word: &str) -> Result<Duration, String> {
    let rate = word.parse().ok().filter(|rate| (1e-6..=1e6).contains(rate));
    rate.map(|rate: f64| Duration::from_secs_f64(1.0 / rate)).ok_or_else(|| "expected a rate above 0".into())
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    // Cheap checks first, so that a wrong path or flag fails before the model is loaded.
    let sources = args.source.open()?;
    let live = sources.iter().all(|source| source.live().is_some());
    let len = if let [source] = &sources[..] { source.len_hint() } else { None };
    let most = args.frames.map(|most| usize::try_from(most.get()).unwrap_or(usize::MAX));
    let total = len.into_iter().chain(most).min();
    let output = output(args, &sources, total)?;
    #[cfg(feature = "view")]
    let page = args.view.config()?;
    let (weights, mut engine) = args.engine.load_incremental(args.reuse.config())?;
    let config = pipeline_config(args, &engine, &sources)?;
    let meta = feature_meta(&weights, &engine);
    for note in engine.take_notes() {
        tell!("note: {note}");
    }
    tell!("{}: {}, {engine}", meta.model_file, meta.model);
    let heads = open_heads(args, &engine, &sources)?;
    let requested: Vec<String> = args.heads.iter().map(|choice| choice.name.to_owned()).collect();
    // The page and recordings always show the colours.
    let mut with_colours = requested.clone();
    with_colours.extend((!requested.iter().any(|name| name == PCA)).then(|| PCA.to_owned()));
    let bar = progress::counter(total.map(|total| total as u64), "frames");
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    // The page first: if it fails, no empty recording is left.
    #[cfg(feature = "view")]
    if let Some(page) = page {
        let title = &format!("{}, {}", meta.model, meta.engine);
        let (model, cameras) = (weights.identity(), args.source.names(sources.len()));
        let view = view::start(page, view::PageFacts { title, model, cameras })?;
        sinks.push(Box::new(ViewSink::new(view, with_colours.clone(), config.commands.clone())));
    }
    #[cfg(feature = "record")]
    if let Some(path) = &args.record {
        sinks.push(Box::new(RecordingSink::create(
            path,
            &recording_meta(&meta, sources.len()),
            with_colours.clone(),
        )?));
    }
    let lines = match (args.json, live) {
        (true, _) => FrameLines::Json,
        (false, true) => FrameLines::None,
        (false, false) => FrameLines::Text,
    };
    let is_picture = output.as_ref().is_some_and(|output| output.format() == Format::Png);
    let shown = if is_picture && requested.is_empty() { vec![PCA.to_owned()] } else { requested };
    sinks.push(Box::new(Results { output, heads: shown, meta, lines, bar: bar.clone() }));
    let mut status = Status::new(live, bar);
    let summary = run(Pipeline::new(sources, Box::new(engine), heads, sinks, config), &mut status)?;
    match (summary.stats.frames, summary.skipped, status.first_skipped()) {
        (0, 0, _) if !summary.stopped => bail!("run: expected at least one frame, got none"),
        (frames, skipped @ 1.., Some(first)) => {
            let inputs = if skipped == 1 { "1 input" } else { &format!("{skipped} inputs") };
            bail!("run: {inputs} could not be used ({frames} frames were processed); the first: {first}")
        }
        _ => Ok(()),
    }
}

/// The output, checked not to replace an input.
fn output(args: &Args, sources: &[Box<dyn Source>], total: Option<usize>) -> anyhow::Result<Option<Output>> {
    let Some(path) = &args.output else { return Ok(None) };
    let files = sources.iter().flat_map(|source| source.files());
    let inputs = Inputs::new(files.chain(model_file(args.engine.model.as_deref())));
    let output = Output::from_path(path, total != Some(1)).map_err(usage)?;
    let output = output.with_folder_format(args.format).with_rule(&inputs, replace(args.force));
    output.check()?;
    Ok(Some(output))
}

fn pipeline_config(
    args: &Args,
    engine: &SelectedEngine,
    sources: &[Box<dyn Source>],
) -> anyhow::Result<PipelineConfig> {
    let taps = match &args.layers {
        Some(list) => Taps::parse(list, engine.spec().depth).map_err(usage)?,
        None => Taps::none(),
    };
    let live = sources.iter().all(|source| source.live().is_some());
    // With a single input there is nothing to continue with, so its error is the error of the run.
    let alone = sources.iter().map(|source| source.files().len()).sum::<usize>() <= 1;
    let watchdog = args.watchdog.or(live.then_some(60)).filter(|seconds| *seconds > 0);
    // Checks the size before threads are started.
    dinov2_edge::io::Fit::new(args.size, engine.spec().patch_size).map_err(usage)?;
    Ok(PipelineConfig {
        size: args.size,
        taps,
        frames: args.frames,
        duration: args.duration,
        period: args.fps,
        watchdog: watchdog.map(Duration::from_secs),
        commands: HeadCommands::default(),
        bad_inputs: if args.strict || alone { BadInputs::Stop } else { BadInputs::Skip },
    })
}

/// The requested heads, and `pca` for page, recording and pictures. Heads that no sink wants are not computed.
fn open_heads(
    args: &Args,
    engine: &SelectedEngine,
    sources: &[Box<dyn Source>],
) -> anyhow::Result<Vec<NamedHead>> {
    let mut choices = args.heads.clone();
    let repeated =
        (1..choices.len()).find(|&at| choices[..at].iter().any(|other| other.name == choices[at].name));
    if let Some(at) = repeated {
        bail!(usage(format_args!("--head {}: expected each head once", choices[at].name)));
    }
    if !choices.iter().any(|choice| choice.name == PCA) {
        // A fixed basis, so that the colours of a video do not flicker.
        let video = sources.iter().any(|source| source.is_video());
        choices.push(if video { "pca:fit=frozen" } else { "pca:fit=each" }.parse()?);
    }
    let open = |choice: &HeadChoice| {
        let head = choice.open(engine.spec()).map_err(|error| usage(chain(&error)))?;
        Ok(NamedHead { name: choice.name.into(), head })
    };
    choices.iter().map(open).collect()
}

fn feature_meta(weights: &ModelSource, engine: &SelectedEngine) -> FeatureMeta {
    FeatureMeta {
        model: engine.spec().name(),
        model_file: weights.label(),
        patch_size: engine.spec().patch_size,
        engine: engine.to_string(),
        precision: engine.facts().precision.into(),
        extra: Vec::new(),
    }
}

#[cfg(feature = "record")]
fn recording_meta(meta: &FeatureMeta, cameras: usize) -> RecordingMeta {
    RecordingMeta {
        model: meta.model.clone(),
        model_file: meta.model_file.clone(),
        patch_size: meta.patch_size,
        engine: meta.engine.clone(),
        precision: meta.precision.clone(),
        cameras,
        ..RecordingMeta::default()
    }
}

fn run(pipeline: Pipeline, status: &mut Status) -> anyhow::Result<Summary> {
    stop_on_signals(pipeline.stop_handle())?;
    let outcome = pipeline.run(&mut |observation| status.observe(observation));
    status::stopping();
    match outcome {
        Ok(summary) => {
            status.finish(&summary);
            Ok(summary)
        }
        Err(error) => {
            status.clear();
            Err(error.into())
        }
    }
}

/// The first SIGINT, SIGTERM or SIGHUP ends the run and completes all outputs; the second ends the program at once.
fn stop_on_signals(stop: PipelineStop) -> anyhow::Result<()> {
    let is_stopping = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if is_stopping.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
        stop.stop();
    })
    .context("signals")
}
