//! `pull`: downloads a released model and converts it.

use std::path::PathBuf;

use crate::hub::{HubConfig, PullProgress, PullRequest, pull};
use dinov2_edge::weights::Storage;
use dinov2_files::{Target, shown};

use crate::args::replace;
use crate::progress;

/// Arguments of `pull`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Known model (small, base, large, giant, small-reg, …; see `models`) or a repository OWNER/NAME
    name: String,
    /// Branch, tag or commit [default: the pinned commit of a known model, otherwise main]
    #[arg(long)]
    revision: Option<String>,
    /// Storage of the matrices: f32, f16, bf16 or int8
    #[arg(long, default_value = "f32")]
    storage: Storage,
    /// Model file to write [default: in the model folder, where --model finds it by name]
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Also replace a file of another kind
    #[arg(long, requires = "output")]
    force: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let config = HubConfig::from_env()?;
    let request = PullRequest {
        name: args.name.clone(),
        revision: args.revision.clone(),
        storage: args.storage,
        output: args.output.as_deref().map(|path| Target::new(path).replacing(replace(args.force))),
    };
    let mut download = None;
    let convert = progress::counter(None, "tensors");
    let pulled = pull(&config, &request, &mut |step| match step {
        PullProgress::Download { file, done_bytes, total_bytes } => {
            let bar = download.get_or_insert_with(|| progress::bytes(total_bytes));
            bar.set_length(total_bytes);
            bar.set_position(done_bytes);
            bar.set_message(file.to_string());
        }
        PullProgress::Convert(step) => {
            convert.set_length(step.total as u64);
            convert.set_position(step.done as u64);
        }
    })?;
    if let Some(bar) = download {
        bar.finish_and_clear();
    }
    convert.finish_and_clear();
    for note in &pulled.notes {
        tell!("note: {note}");
    }
    tell!(
        "{} from {}{}: {} MiB, {}",
        pulled.spec.name(),
        pulled.repository,
        if pulled.from_cache { " (cached)" } else { "" },
        pulled.bytes >> 20,
        shown(&pulled.path)
    );
    Ok(())
}
