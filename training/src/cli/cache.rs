//! `cache`: computes a teacher's features for all views of a recipe and stores them on disk.

use std::path::PathBuf;
use std::process::ExitCode;

use candle_core::Device;

use super::interrupt::{Interrupts, Messages};
use super::models::{TeacherModel, with_recipe_path};
use training::data::Dataset;
use training::eval::ModelChoice;
use training::progress::RunProgress;
use training::recipe::Recipe;
use training::teacher::{CacheConfig, Compression, write_cache};

/// Arguments of `cache`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Recipe of the runs that will use the cache: seed, stages and taps must be the same
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Model file of the teacher and its precision, as for `distill`
    #[arg(long, value_name = "MODEL[:PRECISION]")]
    teacher: ModelChoice,
    /// Images, as for `distill`
    #[arg(long, num_args = 1.., required = true, value_name = "PATH")]
    data: Vec<String>,
    /// Folder of the cache; an incomplete cache is completed
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// f16, or int8: 8 bits with a scale per token, and 384 principal components of wider features
    #[arg(long, default_value = "int8", value_parser = storage)]
    storage: Compression,
    /// Threads that load images [default: one per physical core]
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
}

fn storage(word: &str) -> Result<Compression, String> {
    match word {
        "f16" => Ok(Compression::F16),
        "int8" => Ok(Compression::Int8),
        _ => Err(format!("expected f16 or int8, got {word:?}")),
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let interrupts = Interrupts::listen(Some(Messages {
        stopping: "interrupted: stops after this step; a second signal ends the program at once".into(),
        at_once: "interrupted before the first step: nothing is lost".into(),
    }))?;
    let recipe = Recipe::read(&args.recipe)?;
    let model = TeacherModel::open(&args.teacher)?;
    let blocks: Vec<usize> = recipe.loss.taps.iter().map(|pair| pair.teacher_block).collect();
    let mut teacher =
        model.teacher(&blocks, &Device::Cpu).map_err(|error| with_recipe_path(error, &args.recipe))?;
    let dataset = Dataset::open(&args.data)?;
    let mut bar = RunProgress::new(recipe.steps(), 0);
    let config = CacheConfig {
        output: args.output,
        compression: args.storage,
        teacher: model.identity()?,
        workers: args.workers.map_or_else(|| dinov2_cpu::default_threads().get(), usize::from),
        recipe,
        stop: interrupts.stop.clone(),
    };
    let kept = write_cache(&config, teacher.as_mut(), dataset, &mut |at| bar.step(at.steps, None, at.images))
        .map_err(|error| with_recipe_path(error, &args.recipe))?;
    bar.finish();
    let total = config.recipe.steps();
    if kept < total {
        bar.note(&format!(
            "stopped: features of {kept} of {total} steps are kept; the same command goes on: {}",
            config.output.display()
        ));
        return Ok(interrupts.exit_code());
    }
    println!("{}", config.output.display());
    Ok(ExitCode::SUCCESS)
}
