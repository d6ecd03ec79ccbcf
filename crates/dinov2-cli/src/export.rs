//! `export`: writes a model as an ONNX file.

use std::path::PathBuf;

use anyhow::bail;
use dinov2_edge::io::Size;
use dinov2_edge::onnx::{self, ExportConfig, Resolution, export};
use dinov2_edge::{ModelSource, PatchGrid, Taps};

use dinov2_files::{Kind, shown};

use crate::args::{model_file, open_weights, target};

/// Arguments of `export`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model file, or name of a pulled model [default: the bundled model]
    model: Option<PathBuf>,
    /// ONNX file to write
    #[arg(long, short)]
    output: PathBuf,
    /// Also replace a file of another kind, but never the input
    #[arg(long)]
    force: bool,
    /// Input size: SIDE (square), WIDTHxHEIGHT, or dynamic (the position table becomes a second input)
    #[arg(long, default_value = "224")]
    size: String,
    /// Precision of weights and arithmetic: f32 or f16
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// Extra outputs, as in `run --layers`
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    layers: Option<String>,
}

/// Arithmetic of the ONNX file.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Precision {
    F32,
    F16,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let output = target(&args.output, model_file(args.model.as_deref()), args.force, Kind::Onnx)?;
    let weights = open_weights(args.model.as_deref())?;
    let ModelSource::Model(model) = weights else {
        bail!("export: expected a model file, got an ONNX file: {}", weights.label());
    };
    let taps = match &args.layers {
        Some(list) => Taps::parse(list, model.spec().depth).map_err(crate::usage)?,
        None => Taps::none(),
    };
    let resolution = resolution(&args.size, model.spec().patch_size)?;
    let precision = match args.precision {
        Precision::F32 => onnx::Precision::F32,
        Precision::F16 => onnx::Precision::F16,
    };
    let exported =
        export(&model, &ExportConfig { precision, taps, ..ExportConfig::new(resolution) }, &output)?;
    tell!("wrote {}", shown(&exported.model));
    if let Some(data) = exported.data {
        tell!("wrote its weights, to be kept in the same folder: {}", shown(&data));
    }
    Ok(())
}

fn resolution(word: &str, patch_size: usize) -> anyhow::Result<Resolution> {
    if word == "dynamic" {
        return Ok(Resolution::Dynamic);
    }
    let (width_px, height_px) = match word.parse::<Size>().map_err(crate::usage)? {
        Size::Short(side) => (side, side),
        Size::Exact { width_px, height_px } => (width_px, height_px),
        Size::Native => return Err(crate::usage("size: expected SIDE, WIDTHxHEIGHT or dynamic, got native")),
    };
    let exact =
        Size::Exact { width_px, height_px }.target(width_px, height_px, patch_size).map_err(crate::usage)?;
    Ok(Resolution::Static(PatchGrid { rows: exact.1 / patch_size, cols: exact.0 / patch_size }))
}
