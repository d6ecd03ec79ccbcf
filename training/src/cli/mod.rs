//! The command line: arguments, checked, to a run.

mod cache;
mod distil;
mod models;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Small students of big DINOv2 teachers: curate images, distil, evaluate.
#[derive(Parser)]
#[command(name = "training", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compute a teacher's features of all views of a recipe once, and keep them
    Cache(cache::Args),
    /// Distil a teacher into a student
    Distill(distil::Args),
}

/// Runs the program: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Cache(args) => cache::run(args),
        Command::Distill(args) => distil::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
