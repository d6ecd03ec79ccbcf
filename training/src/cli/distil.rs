use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use candle_core::{DType, Device};
use dinov2_cpu::{CpuConfig, CpuPrecision};
use dinov2_weights::{Model, Storage};
use sha2::{Digest, Sha256};

use crate::data::Dataset;
use crate::distil::{Event, RunConfig, StudentCard, distil};
use crate::recipe::{Recipe, Start};
use crate::teacher::{EngineTeacher, Teacher, VitTeacher};

/// Arguments of `distill`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to learn and how: training/recipes/*.toml
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Model file of the teacher
    #[arg(long, value_name = "MODEL")]
    teacher: PathBuf,
    /// Model file that the student starts from [default: the teacher]
    #[arg(long, value_name = "MODEL")]
    start: Option<PathBuf>,
    /// Images: files, folders, globs, WebDataset shards (.tar), manifests of `curate` (.jsonl)
    #[arg(long, num_args = 1.., required = true, value_name = "PATH")]
    data: Vec<String>,
    /// Folder of the run: checkpoints, metrics and the student
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// Go on from the last checkpoint in the folder
    #[arg(long)]
    resume: bool,
    /// Stop after so many steps, with a checkpoint to go on from
    #[arg(long, value_name = "STEPS")]
    stop_after: Option<u64>,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 500, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: u64,
    /// Steps between measurements on held-out images
    #[arg(long, default_value_t = 500, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    validate_every: u64,
    /// Where to compute: cpu, or with the feature cuda cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads that load images [default: as many as compute]
    #[arg(long, value_name = "THREADS")]
    workers: Option<usize>,
}

/// Opens the device of that name.
pub(super) fn device(name: &str) -> anyhow::Result<Device> {
    match name.split_once(':') {
        None if name == "cpu" => Ok(Device::Cpu),
        None if name == "cuda" => Device::new_cuda(0).context("device cuda"),
        Some(("cuda", index)) => {
            let index = index.parse().with_context(|| format!("device: expected cuda:N, got {name:?}"))?;
            Device::new_cuda(index).with_context(|| format!("device {name}"))
        }
        _ => bail!("device: expected cpu or cuda:N, got {name:?}"),
    }
}

/// A teacher on the device: the runtime's engine on a CPU, candle in bf16 on a GPU.
pub(super) fn teacher(model: &Model, blocks: &[usize], device: &Device) -> anyhow::Result<Box<dyn Teacher>> {
    if !matches!(device, Device::Cpu) {
        return Ok(Box::new(VitTeacher::new(model, DType::BF16, blocks, device)?));
    }
    let mut config = CpuConfig::default();
    // A file in integers has no more to give than the integer engine takes from it.
    if matches!(model.metadata().storage, Storage::Int8 | Storage::Int4) {
        config.precision = CpuPrecision::Int8;
    }
    Ok(Box::new(EngineTeacher::new(model, config, blocks, device)?))
}

/// What tells a model from others: a hash of its header and some of its weights.
fn identity(model: &Model) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    hash.update(model.header_bytes());
    for name in ["cls_token", "norm.weight", "blocks.0.attn.qkv.bias"] {
        hash.update(model.tensor(name)?.bytes);
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let recipe = Recipe::read(&args.recipe)?;
    let device = device(&args.device)?;
    let teacher_model = Model::open(&args.teacher)?;
    let start = match (recipe.student.start, &args.start) {
        (Start::Scratch, None) => None,
        (Start::Scratch, Some(_)) => bail!("--start: expected none with start = \"scratch\" in the recipe"),
        (Start::Model, None) => Some(teacher_model.clone()),
        (Start::Model, Some(path)) => Some(Model::open(path)?),
    };
    let blocks: Vec<usize> = recipe.loss.taps.iter().map(|pair| pair.teacher).collect();
    let mut teacher = teacher(&teacher_model, &blocks, &device)?;
    let dataset = Dataset::open(&args.data)?;
    std::fs::create_dir_all(&args.output).with_context(|| format!("create {}", args.output.display()))?;
    let provenance = &teacher_model.metadata().provenance;
    let card = StudentCard {
        source: format!("distilled from {}", provenance.source),
        licence: provenance.licence.clone(),
        notes: format!("recipe {}, {} images", file_name(&args.recipe), dataset.len()),
        preprocessing: teacher_model.metadata().preprocessing,
    };
    eprintln!("{} images, {} steps", dataset.len(), recipe.steps());
    let config = RunConfig {
        output: args.output,
        resume: args.resume,
        stop_after: args.stop_after,
        checkpoint_every: args.checkpoint_every,
        validate_every: args.validate_every,
        workers: args.workers.unwrap_or_else(|| dinov2_cpu::default_threads().get()),
        device,
        card,
        teacher: identity(&teacher_model)?,
        recipe,
    };
    let began = Instant::now();
    let mut images_done = 0;
    let path = distil(&config, start.as_ref(), teacher.as_mut(), dataset, &mut |event| match event {
        Event::Preparing(text) => eprintln!("{text}"),
        Event::Step { step, images, report } => {
            images_done += images;
            let rate = images_done as f64 / began.elapsed().as_secs_f64();
            let terms: Vec<String> =
                report.terms.iter().map(|(name, term)| format!("{name} {term:.4}")).collect();
            eprintln!(
                "step {} loss {:.4} ({}) |g| {:.3} {rate:.2} images/s",
                step + 1,
                report.loss,
                terms.join(", "),
                report.gradient_norm
            );
        }
        Event::Validated { steps, agreement, .. } => eprintln!("after {steps} steps: {agreement:?}"),
        Event::Checkpoint(path) => eprintln!("wrote {}", path.display()),
        Event::Unreadable(count) => eprintln!("{count} images cannot be read"),
    })?;
    println!("{}", path.display());
    Ok(())
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
