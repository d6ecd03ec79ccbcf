use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use dinov2_edge::heads::PcaView;
use dinov2_edge::io::{
    FeatureMeta, Fit, Format, Frame, Output, RawFormat, RawPixels, RgbGrid, Size, Source, SourceOptions, open,
};
use dinov2_edge::{Engine, Extractor, Features, Taps};
use indicatif::ProgressBar;
use serde_json::json;

use super::args::{EngineArgs, ReuseArgs};
use super::progress;

/// Arguments of `run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Images, folders, globs, y4m, MJPEG, any video, `-` for standard input, `test:` for a synthetic pattern
    #[arg(long, short, num_args = 1.., value_name = "PATH")]
    input: Vec<String>,
    /// SHORT side, WIDTHxHEIGHT, or native (the largest centred part, not resampled)
    #[arg(long, default_value = "224")]
    size: Size,
    /// Also read out: LAYER, LAYER:norm, LAYER:query, LAYER:key, LAYER:value, cls-attention; layers from 0, -1 is the last
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    layers: Option<String>,
    /// .safetensors, .npy or .png (picture of the features beside the image); a folder for many frames
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// What a folder is filled with: safetensors, npy or png
    #[arg(long, default_value = "safetensors")]
    format: Format,
    /// Stop after this many frames
    #[arg(long)]
    frames: Option<usize>,
    #[command(flatten)]
    reuse: ReuseArgs,
    /// One JSON object per frame on stdout
    #[arg(long)]
    json: bool,
    /// Size of raw frames on standard input, WIDTHxHEIGHT
    #[arg(long, value_name = "WxH")]
    raw_size: Option<String>,
    /// Pixels of raw frames: rgb24, bgr24, gray8, yuyv422 or nv12
    #[arg(long, default_value = "rgb24")]
    raw_format: RawPixels,
    /// Program that decodes videos
    #[arg(long, default_value = "ffmpeg")]
    ffmpeg: PathBuf,
}

/// Milliseconds that the steps of one frame took.
struct Latency {
    read: f64,
    fit: f64,
    extract: f64,
    write: f64,
}

/// Everything that a frame passes through, reused from frame to frame.
struct Pipeline {
    engine: Engine,
    fit: Fit,
    taps: Taps,
    output: Option<Output>,
    meta: FeatureMeta,
    view: PcaViewer,
    features: Features,
}

/// Colours of the feature pictures: fitted to each still image, but once for a video, where they must not flicker.
struct PcaViewer {
    fitted: Option<PcaView>,
    frozen: bool,
    rgb: Vec<u8>,
}

impl PcaViewer {
    /// Colours `[rows, cols, 3]` of a frame's patches.
    fn colours(&mut self, features: &Features) -> anyhow::Result<RgbGrid<'_>> {
        let view = match &mut self.fitted {
            Some(view) if self.frozen => view,
            fitted => fitted.insert(PcaView::fit(features.patches(), features.dim())?),
        };
        view.rgb_into(features.patches(), &mut self.rgb)?;
        Ok(RgbGrid { pixels: &self.rgb })
    }
}

pub(crate) fn main(args: Args) -> anyhow::Result<()> {
    if args.input.is_empty() {
        bail!(super::usage(
            "run: expected a source, got none; try `--input PHOTO.jpg`, `--input VIDEO.mp4` or `--input test:`"
        ));
    }
    let options = SourceOptions { raw: raw_format(&args)?, ffmpeg: args.ffmpeg.clone(), topic: None };
    // Cheap checks first: a wrong path or flag is told before a model is loaded.
    let mut source = open(&args.input, &options)?;
    let many = source.len_hint() != Some(1) && args.frames != Some(1);
    let output = args.output.as_deref().map(|path| Output::from_path(path, many)).transpose();
    let output = output.map_err(super::usage)?.map(|output| output.with_folder_format(args.format));
    let (weights, engine) = args.engine.load_incremental(args.reuse.config())?;
    let taps = match &args.layers {
        Some(list) => Taps::parse(list, engine.spec().depth).map_err(super::usage)?,
        None => Taps::none(),
    };
    let mut pipeline = Pipeline {
        fit: Fit::new(args.size, engine.spec().patch_size).map_err(super::usage)?,
        meta: FeatureMeta {
            model: engine.spec().name(),
            model_file: weights.label(),
            patch_size: engine.spec().patch_size,
            engine: engine.to_string(),
            precision: engine.precision().into(),
            extra: Vec::new(),
        },
        view: PcaViewer { fitted: None, frozen: source.is_video(), rgb: Vec::new() },
        features: Features::new(),
        engine,
        taps,
        output,
    };
    for note in pipeline.engine.take_notes() {
        eprintln!("note: {note}");
    }
    eprintln!("{}: {}, {}", pipeline.meta.model_file, pipeline.meta.model, pipeline.engine);
    let total = match (source.len_hint(), args.frames) {
        (Some(len), Some(most)) => Some(len.min(most)),
        (len, most) => len.or(most),
    };
    let bar = progress::counter(total.map(|total| total as u64), "frames");
    let outcome = pipeline.run(source.as_mut(), &args, &bar);
    bar.finish_and_clear();
    for note in source.take_notes().into_iter().chain(pipeline.engine.take_notes()) {
        eprintln!("note: {note}");
    }
    let frames = outcome?;
    if frames == 0 {
        bail!("run: expected at least one frame, got none");
    }
    Ok(())
}

fn raw_format(args: &Args) -> anyhow::Result<Option<RawFormat>> {
    let Some(size) = &args.raw_size else { return Ok(None) };
    Ok(Some(RawFormat::new(size, args.raw_format).map_err(super::usage)?))
}

impl Pipeline {
    /// Returns the number of frames.
    fn run(&mut self, source: &mut dyn Source, args: &Args, bar: &ProgressBar) -> anyhow::Result<usize> {
        let mut frame = Frame::new();
        let mut frames = 0;
        while args.frames.is_none_or(|most| frames < most) {
            let start = Instant::now();
            if !source.next_frame(&mut frame)? {
                break;
            }
            let read = milliseconds(start);
            self.frame(&frame, read, args.json, bar)?;
            frames += 1;
            bar.inc(1);
        }
        Ok(frames)
    }

    fn frame(&mut self, frame: &Frame, read: f64, as_json: bool, bar: &ProgressBar) -> anyhow::Result<()> {
        let start = Instant::now();
        let image = self.fit.fit(frame.view())?;
        let fit = milliseconds(start);
        let start = Instant::now();
        self.engine.extract(image, &self.taps, &mut self.features)?;
        let extract = milliseconds(start);
        let start = Instant::now();
        let written = match &mut self.output {
            None => None,
            Some(output) => {
                let view = output.needs_view().then(|| self.view.colours(&self.features)).transpose()?;
                Some(output.write(frame, image, &self.features, view, &self.meta)?)
            }
        };
        let latency = Latency { read, fit, extract, write: milliseconds(start) };
        let size_px = (image.width_px(), image.height_px());
        let recomputed = self.engine.recomputed_share();
        // A bar on the same terminal would tear the line apart.
        let report =
            || print_frame(frame, size_px, &self.features, &latency, written.as_deref(), recomputed, as_json);
        if std::io::stdout().is_terminal() { bar.suspend(report) } else { report() }
    }
}

fn print_frame(
    frame: &Frame,
    size_px: (usize, usize),
    features: &Features,
    latency: &Latency,
    written: Option<&Path>,
    recomputed: Option<f64>,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let (grid, total) = (features.grid(), latency.read + latency.fit + latency.extract + latency.write);
    if as_json {
        let mut line = json!({
            "frame": frame.index,
            "name": frame.name,
            "source": frame.path,
            "capture_ns": frame.capture_ns,
            "size_px": [size_px.0, size_px.1],
            "grid": { "rows": grid.rows, "cols": grid.cols },
            "dim": features.dim(),
            "latency_ms": {
                "read": latency.read,
                "fit": latency.fit,
                "extract": latency.extract,
                "write": latency.write,
                "total": total,
            },
            "output": written,
        });
        if let Some(share) = recomputed {
            line["recomputed"] = share.into();
        }
        writeln!(stdout, "{line}")?;
        return Ok(());
    }
    let to = written.map(|path| format!(" -> {}", path.display())).unwrap_or_default();
    writeln!(
        stdout,
        "{}: {grid} patches of {}x{} px, dim {}, {:.1} ms (extract {:.1}){to}",
        frame.name,
        size_px.0,
        size_px.1,
        features.dim(),
        total,
        latency.extract
    )?;
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
