//! The command line of training.

mod cli {
    pub(crate) mod curate;
}

use clap::Parser;

#[derive(Parser)]
#[command(name = "training")]
enum Cli {
    /// Choose images to train on
    Curate(cli::curate::Args),
}

fn main() -> anyhow::Result<()> {
    let Cli::Curate(args) = Cli::parse();
    cli::curate::run(args)
}
