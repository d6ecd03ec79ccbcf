use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::bail;
use dinov2_edge::io::{Fit, Frame, Size, SourceOptions, open};
use dinov2_edge::quantise::{ImageSet, LEAST_IMAGES, Picture, Progress, QuantiseOptions, Report, quantise};
use dinov2_edge::weights::Quantisation;
use dinov2_edge::{Weights, default_threads};
use serde_json::json;

use super::args::{open_weights, threads};
use super::progress;

/// Arguments of `quantize`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model file in f32, f16 or bf16
    #[arg(long, short, value_name = "MODEL")]
    model: PathBuf,
    /// Images like those that the model will see: files, folders or globs
    #[arg(long, num_args = 1.., required = true, value_name = "PATH")]
    calibration: Vec<String>,
    /// Model file to write
    #[arg(long, short)]
    output: PathBuf,
    /// Arithmetic that the file is made for: int8
    #[arg(long, default_value = "int8")]
    precision: Target,
    /// Short sides at which the model will run; the statistics and the fidelity are taken at all of them
    #[arg(long, value_delimiter = ',', default_value = "224,518")]
    sizes: Vec<usize>,
    /// Images used, evenly spread over those given; a third of them only measures the fidelity
    #[arg(long, default_value_t = 96)]
    images: usize,
    /// Largest weight in units of its scale. 64 is as fast as can be on CPUs with AVX2 but no VNNI; 127 is the most precise
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u8).range(7..=127))]
    weight_limit: u8,
    /// Threads [default: one per physical core]
    #[arg(long, value_parser = threads)]
    threads: Option<NonZeroUsize>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What a file can be quantised for.
#[derive(Clone, Copy, Debug)]
enum Target {
    Int8,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "int8" => Ok(Self::Int8),
            _ => Err(format!("expected int8, got {word:?}")),
        }
    }
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let Target::Int8 = args.precision;
    if args.output.is_dir() {
        bail!(super::usage(format!("--output: expected a file, got a folder: {}", args.output.display())));
    }
    if args.images < LEAST_IMAGES {
        bail!(super::usage(format!("--images: expected at least {LEAST_IMAGES}, got {}", args.images)));
    }
    let Weights::Model(model) = open_weights(Some(&args.model))? else {
        bail!("quantize: expected a model file, got an ONNX file (dinov2-edge convert makes one)");
    };
    let images = load(args, model.spec().patch_size)?;
    let options = QuantiseOptions {
        weight_limit: args.weight_limit,
        threads: args.threads.unwrap_or_else(default_threads),
    };
    let bar = progress::counter(Some(1), "steps");
    let mut stage = "";
    let report = quantise(&model, &images, options, &args.output, &mut |now: Progress| {
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

/// Reads the images and fits them to every size: all to the first; of the larger ones, whose patches count for more,
/// a fourth.
fn load(args: &Args, patch_size: usize) -> anyhow::Result<Vec<ImageSet>> {
    let mut source = open(&args.calibration, &SourceOptions::default())?;
    let given = source.len_hint().unwrap_or(args.images);
    let wanted = args.images.min(given);
    if wanted < LEAST_IMAGES {
        bail!("calibration: expected at least {LEAST_IMAGES} images, got {given}");
    }
    let mut sets = Vec::new();
    let mut fits = Vec::new();
    for &size_px in &args.sizes {
        sets.push(ImageSet { size_px, calibration: Vec::new(), held_out: Vec::new() });
        fits.push(Fit::new(Size::Short(size_px), patch_size).map_err(super::usage)?);
    }
    let bar = progress::counter(Some(given as u64), "images read");
    let (mut frame, mut index, mut taken) = (Frame::new(), 0, 0);
    while taken < wanted && source.next_frame(&mut frame)? {
        if index * wanted / given >= taken {
            for (at, (set, fit)) in sets.iter_mut().zip(&mut fits).enumerate() {
                // Of every three images, the last is held out.
                let group = taken / 3;
                if at == 0 || group % 4 == 0 {
                    let picture = Picture::new(fit.fit(frame.view())?);
                    if taken % 3 == 2 { set.held_out.push(picture) } else { set.calibration.push(picture) }
                }
            }
            taken += 1;
        }
        index += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(sets)
}

fn print(report: &Report, args: &Args) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let Report { exponents, matrices, quantisation } = report;
    if args.json {
        let rows: Vec<_> = matrices
            .iter()
            .map(|m| {
                json!({ "name": m.name, "outliers": m.outliers, "output_error": m.output_error,
                        "nearest_error": m.nearest_error })
            })
            .collect();
        let line = json!({ "exponents": exponents, "matrices": rows, "quantisation": quantisation });
        writeln!(stdout, "{line}")?;
    } else {
        writeln!(
            stdout,
            "{:<22} {:>9} {:>13} {:>15}",
            "matrix", "outliers", "output error", "without feedback"
        )?;
        for m in matrices {
            let (name, outliers) = (&m.name, m.outliers);
            writeln!(
                stdout,
                "{name:<22} {outliers:>9.1} {:>13.5} {:>15.5}",
                m.output_error, m.nearest_error
            )?;
        }
        let [attention, mlp] = exponents.map(|alpha| alpha.map_or("none".into(), |alpha| alpha.to_string()));
        writeln!(stdout, "smoothing exponents: attention {attention}, MLP {mlp}")?;
        for f in &quantisation.fidelity {
            let (size, patches) = (f.size_px, f.patches);
            writeln!(
                stdout,
                "patch cosine at {size}: median {:.5}  p5 {:.5}  ({patches} patches)",
                f.median, f.p5
            )?;
        }
    }
    let gate = (Quantisation::LEAST_MEDIAN, Quantisation::LEAST_P5);
    let verdict = if quantisation.meets_gate() { "meets" } else { "misses" };
    eprintln!("wrote {}: {verdict} the gate (median {}, p5 {})", args.output.display(), gate.0, gate.1);
    Ok(())
}
