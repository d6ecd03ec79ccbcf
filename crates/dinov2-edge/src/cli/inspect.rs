use std::io::Write;
use std::path::PathBuf;

use dinov2_edge::Weights;

use super::args::open_weights;

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model file, or name of a pulled model [default: the bundled model]
    model: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let weights = open_weights(args.model.as_deref())?;
    let Weights::Model(model) = weights else {
        anyhow::bail!("inspect: expected a model file, got an ONNX file: {}", weights.label());
    };
    let mut stdout = std::io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(model.metadata())?)?;
    } else {
        write!(stdout, "{}", dinov2_edge::weights::inspect(&model))?;
    }
    Ok(())
}
