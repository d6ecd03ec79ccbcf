//! The command line of training.

mod cli {
    pub(crate) mod eval;
}

use clap::Parser;

#[derive(Parser)]
#[command(name = "training")]
enum Cli {
    Eval(Box<cli::eval::Args>),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse() {
        Cli::Eval(args) => cli::eval::run(*args),
    }
}
