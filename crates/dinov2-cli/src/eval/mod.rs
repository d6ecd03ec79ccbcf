//! `eval`: evaluates features, one file per task.

mod labelled;
mod segmentation;

use clap::Subcommand;

/// Arguments of `eval`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Train a linear probe per engine on patch features and score it on label maps (mIoU)
    Segmentation(segmentation::Args),
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    match &args.task {
        Task::Segmentation(args) => segmentation::main(args),
    }
}
