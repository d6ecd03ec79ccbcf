//! `quantize`: arguments, reading of calibration images, and the report. The quantization itself is in `dinov2-edge`.

use std::ffi::OsString;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use dinov2_edge::io::{Fit, Frame, Size, Source, SourceOptions, open};
use dinov2_edge::quantize::{
    ImageSet, LEAST_IMAGES, MatrixReport, Picture, Progress, QuantizeOptions, Report, Target, check, quantize,
};
use dinov2_edge::weights::INT4_GROUPS;
use dinov2_edge::{ModelSource, default_threads};
use dinov2_files::{Kind, shown};
use serde_json::json;

use crate::args::{model_file, open_weights, source_of, target as output_target, threads};
use crate::progress;

/// Arguments of `quantize`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model file in f32, f16 or bf16
    #[arg(long, short, value_name = "MODEL")]
    model: PathBuf,
    /// Calibration images, similar to those that the model will run on: files, folders or globs
    #[arg(long, num_args = 1.., required = true, value_name = "PATH")]
    calibration: Vec<OsString>,
    /// Model file to write
    #[arg(long, short)]
    output: PathBuf,
    /// Also replace a file of another kind, but never an input
    #[arg(long)]
    force: bool,
    /// Storage of the weights: int8, or int4, which halves the file; both run in int8 arithmetic at the same speed
    #[arg(long, default_value = "int8")]
    precision: Bits,
    /// With --precision int4, number of weights that share a scale: 32 or 64 [default: 64]
    #[arg(long, value_name = "WEIGHTS", value_parser = group)]
    group: Option<usize>,
    /// With --precision int4, maximum share of the weights, 0 to 1, that stay int8: the matrices with the largest int4 error
    /// [default: 0]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    int8_share: Option<f64>,
    /// Image sizes (short sides) that the model will run at; statistics and fidelity are measured at each
    #[arg(long, value_parser = sizes, default_value = "224,518")]
    sizes: Sizes,
    /// Number of images used, evenly spread over those given; a third of them is held out to measure the fidelity
    #[arg(long, default_value_t = 96)]
    images: usize,
    /// Largest quantized weight. 64 is the fastest on CPUs with AVX2 but without VNNI; 127 is the most precise
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u8).range(7..=127))]
    weight_limit: u8,
    /// Number of threads [default: one per available core, limited by the CPU quota]
    #[arg(long, value_parser = threads)]
    threads: Option<NonZeroUsize>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Storage of the quantized weights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bits {
    Int8,
    Int4,
}

impl FromStr for Bits {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "int8" => Ok(Self::Int8),
            "int4" => Ok(Self::Int4),
            _ => Err(format!("expected int8 or int4, got {word:?}")),
        }
    }
}

/// Short sides in pixels, without duplicates.
#[derive(Clone, Debug)]
struct Sizes(Vec<usize>);

fn sizes(word: &str) -> Result<Sizes, String> {
    let wrong = || format!("expected short sides in pixels, such as 224,518, got {word:?}");
    let mut sizes = Vec::new();
    for part in word.split(',') {
        match part.parse() {
            Ok(Size::Short(side)) if !sizes.contains(&side) => sizes.push(side),
            _ => return Err(wrong()),
        }
    }
    Ok(Sizes(sizes))
}

fn group(word: &str) -> Result<usize, String> {
    let group = word.parse().ok().filter(|group| INT4_GROUPS.contains(group));
    group.ok_or_else(|| format!("expected 32 or 64, got {word:?}"))
}

fn share(word: &str) -> Result<f64, String> {
    let share = word.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("expected a number from 0 to 1, got {word:?}"))
}

/// Default number of int4 weights that share a scale.
const DEFAULT_GROUP: usize = 64;
/// Default share of the weights that stay int8 in an int4 file: the matrices of a ViT-S have similar errors, and the gate is met
/// without (docs/benchmarks.md).
const DEFAULT_INT8_SHARE: f64 = 0.0;

impl Args {
    /// Checks the arguments and returns the target.
    fn target(&self) -> anyhow::Result<Target> {
        let output = shown(&self.output);
        let folder = self.output.parent().filter(|folder| !folder.as_os_str().is_empty());
        if !folder.unwrap_or(Path::new(".")).is_dir() {
            bail!(crate::usage(format!("--output: expected a file in a folder that exists, got {output}")));
        }
        if self.images < LEAST_IMAGES {
            bail!(crate::usage(format!("--images: expected at least {LEAST_IMAGES}, got {}", self.images)));
        }
        if self.precision == Bits::Int8 && (self.group.is_some() || self.int8_share.is_some()) {
            bail!(crate::usage("--group and --int8-share: expected --precision int4, got int8"));
        }
        Ok(match self.precision {
            Bits::Int8 => Target::Int8,
            Bits::Int4 => Target::Int4 {
                group: self.group.unwrap_or(DEFAULT_GROUP),
                int8_share: self.int8_share.unwrap_or(DEFAULT_INT8_SHARE),
            },
        })
    }
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let target = args.target()?;
    let ModelSource::Model(model) = open_weights(Some(&args.model))? else {
        bail!("quantize: expected a model file, got an ONNX file (dinov2-edge convert makes one)");
    };
    check(&model)?;
    let mut source = open(&args.calibration, &SourceOptions::default())?;
    let inputs = source.files().into_iter().chain(model_file(Some(&args.model)));
    let output = output_target(&args.output, inputs, args.force, Kind::Model)?;
    let images = load(args, &mut *source, model.spec().patch_size)?;
    let options = QuantizeOptions {
        target,
        weight_limit: args.weight_limit,
        threads: args.threads.unwrap_or_else(default_threads),
    };
    let bar = progress::counter(Some(1), "steps");
    let mut stage = "";
    let report = quantize(&model, &images, options, &output, &mut |now: Progress| {
        if now.stage != stage {
            stage = now.stage;
            bar.reset();
            bar.set_message(stage);
        }
        bar.set_length(now.total as u64);
        bar.set_position(now.done as u64);
    });
    bar.finish_and_clear();
    print(&report?, args)
}

/// Reads the images and fits them to every size: all of them to the first size, a fourth to the others, whose images have more patches.
fn load(args: &Args, source: &mut dyn Source, patch_size: usize) -> anyhow::Result<Vec<ImageSet>> {
    let given = source.len_hint().unwrap_or(args.images);
    let wanted = args.images.min(given);
    if wanted < LEAST_IMAGES {
        bail!("calibration: expected at least {LEAST_IMAGES} images, got {given}");
    }
    let mut sets = Vec::new();
    let mut fits = Vec::new();
    for &size_px in &args.sizes.0 {
        sets.push(ImageSet { size_px, calibration: Vec::new(), held_out: Vec::new() });
        fits.push(Fit::new(Size::Short(size_px), patch_size).map_err(crate::usage)?);
    }
    let bar = progress::counter(Some(given as u64), "images read");
    let (mut frame, mut index, mut taken) = (Frame::new(), 0, 0);
    while taken < wanted && source.next_frame(&mut frame)? {
        if index * wanted / given >= taken {
            for (at, (set, fit)) in sets.iter_mut().zip(&mut fits).enumerate() {
                // Of every three images, the last is held out.
                let group = taken / 3;
                if at == 0 || group % 4 == 0 {
                    let picture = Picture::new(fit.fit(frame.view()).with_context(|| source_of(&frame))?);
                    if taken % 3 == 2 { set.held_out.push(picture) } else { set.calibration.push(picture) }
                }
            }
            taken += 1;
        }
        index += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    // A stream may end early.
    if taken < LEAST_IMAGES {
        bail!("calibration: expected at least {LEAST_IMAGES} images, got {taken}");
    }
    Ok(sets)
}

fn print(report: &Report, args: &Args) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let Report { exponents, matrices, quantization } = report;
    if args.json {
        let rows: Vec<_> = matrices
            .iter()
            .map(|m| {
                json!({ "name": m.name, "bits": m.bits, "weights": m.weights, "outliers": m.outliers, "output_error": m.output_error,
                        "nearest_error": m.nearest_error, "int4_error": m.int4_error })
            })
            .collect();
        let line = json!({ "exponents": exponents, "matrices": rows, "quantisation": quantization });
        writeln!(stdout, "{line}")?;
    } else {
        table(&mut stdout, matrices)?;
        let [attention, mlp] = exponents.map(|alpha| alpha.map_or("none".into(), |alpha| alpha.to_string()));
        writeln!(stdout, "smoothing exponents: attention {attention}, MLP {mlp}")?;
        for f in &quantization.fidelity {
            let (size, patches) = (f.size_px, f.patches);
            writeln!(
                stdout,
                "patch cosine at {size}: median {:.5}  p5 {:.5}  ({patches} patches)",
                f.median, f.p5
            )?;
        }
    }
    let gate = quantization.gate();
    let verdict = if quantization.meets_gate() { "meets" } else { "misses" };
    let bits = if quantization.int4_group.is_some() { "int4" } else { "int8" };
    let mib = std::fs::metadata(&args.output)?.len() as f64 / f64::from(1 << 20);
    tell!(
        "wrote {}: {mib:.1} MiB, {verdict} the {bits} gate (median {}, p5 {})",
        args.output.display(),
        gate.median,
        gate.p5
    );
    Ok(())
}

fn table(stdout: &mut impl Write, matrices: &[MatrixReport]) -> std::io::Result<()> {
    writeln!(
        stdout,
        "{:<22} {:>4} {:>9} {:>13} {:>16} {:>8}",
        "matrix", "bits", "outliers", "output error", "without feedback", "in int4"
    )?;
    for m in matrices {
        let in_int4 = m.int4_error.map_or(String::new(), |error| format!("{error:.5}"));
        let row = format!(
            "{:<22} {:>4} {:>9.1} {:>13.5} {:>16.5} {in_int4:>8}",
            m.name, m.bits, m.outliers, m.output_error, m.nearest_error
        );
        writeln!(stdout, "{}", row.trim_end())?;
    }
    Ok(())
}
