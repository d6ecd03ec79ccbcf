//! `convert`: converts a checkpoint to a model file.

use std::fs;
use std::path::{Path, PathBuf};

use dinov2_edge::weights::{ConvertOptions, Converted, Storage, convert};
use dinov2_files::{Kind, shown};

use crate::args::target;
use crate::progress;

/// Arguments of `convert`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Checkpoint: .pth, .safetensors (Hugging Face, timm, or a model file), a Hugging Face folder, or .onnx
    input: PathBuf,
    /// Model file to write
    #[arg(long, short)]
    output: PathBuf,
    /// Also replace a file of another kind, but never the input
    #[arg(long)]
    force: bool,
    /// Storage of the matrices: f32, f16, bf16 or int8
    #[arg(long, default_value = "f32")]
    storage: Storage,
    /// Number of attention heads, if the checkpoint does not state it [default: dim / 64]
    #[arg(long)]
    heads: Option<usize>,
    /// Source of the weights, stored as metadata
    #[arg(long)]
    source: Option<String>,
    /// Licence of the weights, stored as metadata
    #[arg(long)]
    licence: Option<String>,
    /// Notes for users of the model, stored as metadata
    #[arg(long)]
    notes: Option<String>,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let output = target(&args.output, input_files(&args.input), args.force, Kind::Model)?;
    let options = ConvertOptions {
        storage: args.storage,
        heads: args.heads,
        convention: None,
        source: args.source.clone(),
        licence: args.licence.clone(),
        notes: args.notes.clone(),
    };
    let bar = progress::counter(None, "tensors");
    let converted = convert(&args.input, &output, &options, &mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
    })?;
    bar.finish_and_clear();
    let Converted { metadata, ignored, file_bytes, notes, .. } = converted;
    let spec = &metadata.spec;
    tell!(
        "{}: {:.1} M parameters, {}",
        spec.name(),
        spec.parameters() as f64 / 1e6,
        spec.position_convention
    );
    if ignored > 0 {
        tell!("ignored {ignored} tensors that are not part of a DINOv2 backbone");
    }
    for note in notes {
        tell!("note: {note}");
    }
    let (path, mib) = (shown(&args.output), file_bytes as f64 / f64::from(1 << 20));
    tell!("wrote {path}: {}, {mib:.1} MiB", metadata.storage);
    Ok(())
}

/// The input, and its files if it is a folder.
fn input_files(input: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(input).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).chain([input.to_path_buf()]).collect()
}
