//! `qat`: quantization-aware training of a student for the int8 engine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use dinov2_weights::{Model, Storage};

use super::distill::RunArgs;
use super::models::TeacherModel;
use training::eval::ModelChoice;
use training::recipe::{Recipe, Start};

/// Arguments of `qat`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model file to start from: a student in f32, or the same quantized by `dinov2-edge quantize`
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Model file of the teacher [default: the model itself, if it is not quantized]
    #[arg(long, value_name = "MODEL[:PRECISION]")]
    teacher: Option<ModelChoice>,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut recipe = Recipe::read(&args.run.recipe)?;
    if recipe.student.start != Start::Model {
        bail!("recipe: student.start: expected \"model\" for qat: {}", args.run.recipe.display());
    }
    recipe.quantize.get_or_insert_default();
    let model = Model::open(&args.model)?;
    if args.teacher.is_none() && matches!(model.metadata().storage, Storage::Int8 | Storage::Int4) {
        bail!(
            "--teacher: expected a model, got none: a quantized model would learn its own rounding errors: {}",
            args.model.display()
        );
    }
    let teacher = match &args.teacher {
        Some(choice) => TeacherModel::open(choice)?,
        None => TeacherModel::itself(&model),
    };
    let source = format!("{}; trained in int8", model.metadata().provenance.source);
    args.run.train(recipe, &teacher, Some(&model), source)
}
