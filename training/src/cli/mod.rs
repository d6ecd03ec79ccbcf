//! The command line: from arguments to checked settings to a run.

mod cache;
mod curate;
mod distill;
mod eval;
mod interrupt;
mod models;
mod qat;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dinov2_files::chain;

/// Small students of large DINOv2 teachers: curate images, distill, train for int8, evaluate.
#[derive(Parser)]
#[command(name = "training", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compute a teacher's features for all views of a recipe and store them
    Cache(cache::Args),
    /// Choose images to train on: readable, without duplicates, without evaluation images, balanced
    Curate(curate::Args),
    /// Distill a teacher into a student
    Distill(distill::Args),
    /// Compare models: neighbours, probes, fidelity, robustness, tracking, latency
    Eval(eval::Args),
    /// Quantization-aware training: the result is a model file in int8
    Qat(qat::Args),
}

/// Runs the program: 0 done, 1 failed, 2 wrong usage, 128 and the number of the signal that ended it.
pub(crate) fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Cache(args) => cache::run(args),
        Command::Curate(args) => curate::run(args).map(|()| ExitCode::SUCCESS),
        Command::Distill(args) => distill::run(args),
        Command::Eval(args) => eval::run(args).map(|()| ExitCode::SUCCESS),
        Command::Qat(args) => qat::run(args),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
