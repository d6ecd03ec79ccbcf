//! `models`: lists the bundled model, those on disk and those that `pull` knows.

use std::io::Write;

use crate::args::{BUNDLED_NAME, bundled_model};
use crate::hub::{HubConfig, KNOWN, KnownModel, LocalModel, local_models};
use dinov2_files::chain;
use serde_json::{Value, json};

/// Arguments of `models`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let config = HubConfig::from_env()?;
    let local = local_models(&config.models)?;
    let mut stdout = std::io::stdout().lock();
    if args.json {
        let known: Vec<Value> = KNOWN.iter().map(known_json).collect();
        let local: Vec<Value> = local.iter().map(local_json).collect();
        let report =
            json!({ "folder": config.models, "bundled": BUNDLED_NAME, "on_disk": local, "known": known });
        writeln!(stdout, "{report}")?;
        return Ok(());
    }
    if let Ok(model) = bundled_model() {
        writeln!(stdout, "bundled  {BUNDLED_NAME} ({}), the default", model.spec().name())?;
    }
    writeln!(stdout, "on disk  {}", config.models.display())?;
    for model in &local {
        match &model.model {
            Ok((spec, storage)) => {
                writeln!(
                    stdout,
                    "  {:<30} {:<14} {storage:<5} {:>6} MiB",
                    model.name,
                    spec.name(),
                    model.bytes >> 20
                )?;
            }
            Err(error) => writeln!(stdout, "  {:<30} unusable: {}", model.name, chain(error))?,
        }
    }
    if local.is_empty() {
        writeln!(stdout, "  none yet: dinov2-edge pull small")?;
    }
    writeln!(stdout, "known    (dinov2-edge pull NAME)")?;
    for model in KNOWN {
        let (millions, mib) = (model.parameters / 1_000_000, model.download_bytes() >> 20);
        writeln!(stdout, "  {:<30} {millions:>5} M parameters {mib:>6} MiB  {}", model.name, model.licence)?;
    }
    Ok(())
}

fn known_json(model: &KnownModel) -> Value {
    json!({
        "name": model.name,
        "repository": model.repository,
        "licence": model.licence,
        "parameters": model.parameters,
        "download_bytes": model.download_bytes(),
        "dim": model.dim,
        "depth": model.depth,
        "registers": model.registers,
    })
}

fn local_json(local: &LocalModel) -> Value {
    let facts =
        local.model.as_ref().map(|(spec, storage)| json!({ "spec": spec, "storage": storage.to_string() }));
    json!({
        "name": local.name,
        "path": local.path,
        "bytes": local.bytes,
        "model": facts.as_ref().ok(),
        "error": facts.as_ref().err().map(|error| chain(error)),
    })
}
