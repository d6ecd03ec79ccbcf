//! `inspect`: shows shape and metadata of a model file, or how a checkpoint would be converted.

use std::io::Write;
use std::path::PathBuf;

use dinov2_edge::ModelSource;
use dinov2_edge::weights::{inspect_source, is_model_file};

use crate::args::{open_weights, resolve};

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model file, name of a pulled model, or a checkpoint that `convert` reads [default: the bundled model]
    model: Option<PathBuf>,
    /// Number of attention heads, if the checkpoint does not state it [default: dim / 64]
    #[arg(long)]
    heads: Option<usize>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if let Some(path) = args.model.as_deref().map(resolve)
        && path.exists()
        && !is_model_file(&path)?
    {
        let report = inspect_source(&path, args.heads)?;
        match args.json {
            true => writeln!(stdout, "{}", serde_json::to_string(&report)?)?,
            false => write!(stdout, "{report}")?,
        }
        return Ok(());
    }
    let weights = open_weights(args.model.as_deref())?;
    let ModelSource::Model(model) = weights else {
        anyhow::bail!("inspect: expected a model file, got an ONNX file: {}", weights.label());
    };
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(model.metadata())?)?;
    } else {
        write!(stdout, "{}", dinov2_edge::weights::inspect(&model))?;
    }
    Ok(())
}
