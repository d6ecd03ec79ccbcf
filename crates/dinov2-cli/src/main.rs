//! The program `dinov2-edge`. One file per command, each in three steps: raw arguments (clap), a validated configuration, the run.
//!
//! Results go to stdout, messages to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage.

/// Writes one line to stderr. Control characters, such as line breaks in file names, are escaped. Errors of stderr are ignored, where
/// `eprintln!` would panic.
macro_rules! tell {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "{}", dinov2_files::shown(format!($($words)*)));
    }};
}

mod args;
mod bench;
mod cameras;
mod compare;
mod convert;
mod doctor;
mod engine_choice;
mod eval;
mod export;
mod hub;
mod inspect;
mod machine;
mod models;
mod progress;
#[cfg(feature = "hub")]
mod pull;
mod quantize;
mod run;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dinov2_files::chain;

/// Dense DINOv2 features in real time.
#[derive(Parser)]
#[command(name = "dinov2-edge", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Extract dense features from images, video or a stream
    Run(Box<run::Args>),
    /// List cameras with their formats, sizes, rates and controls
    Cameras(cameras::Args),
    /// Convert a checkpoint (.pth, Hugging Face, timm, ONNX) to a model file
    Convert(convert::Args),
    /// Quantize a model file to int8 or int4, calibrated on images
    Quantize(quantize::Args),
    /// Show the content of a model file
    Inspect(inspect::Args),
    /// Write a model as an ONNX file
    Export(export::Args),
    /// Download a released model and convert it
    #[cfg(feature = "hub")]
    Pull(pull::Args),
    /// List known models and those on disk
    Models(models::Args),
    /// Measure latency and memory
    Bench(bench::Args),
    /// Compare the features of two engines, precisions or models
    Compare(compare::Args),
    /// Evaluate features on a task
    Eval(eval::Args),
    /// Show the hardware of this machine and the engine that `run` would select, with the reason
    Doctor(doctor::Args),
}

/// Wrong usage that clap cannot detect: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Marks an error as wrong usage.
fn usage(error: impl std::fmt::Display) -> anyhow::Error {
    UsageError(error.to_string()).into()
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run::main(&args),
        Command::Cameras(args) => cameras::main(&args),
        Command::Convert(args) => convert::main(&args),
        Command::Quantize(args) => quantize::main(&args),
        Command::Inspect(args) => inspect::main(&args),
        Command::Export(args) => export::main(&args),
        #[cfg(feature = "hub")]
        Command::Pull(args) => pull::main(&args),
        Command::Models(args) => models::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Compare(args) => compare::main(&args),
        Command::Eval(args) => eval::main(&args),
        Command::Doctor(args) => doctor::main(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of stdout has closed the pipe, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {}", chain(&*error));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// A value as text, strings without quotes.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
