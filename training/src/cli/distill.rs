//! `distill`: trains a student. Also the part that `qat` shares with it: arguments of a run, and the reporter that turns its events
//! into metrics, pictures and lines on standard error.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use candle_core::{DType, Device, Tensor};
use dinov2_core::ImageView;
use dinov2_files::chain;
use dinov2_weights::{Model, Normalisation, Preprocessing};

use super::interrupt::{Interrupts, Messages};
use super::models::{TeacherModel, device, with_recipe_path};
use training::data::{Batch, Dataset};
use training::distill::{
    Agreement, CheckpointEvery, Event, Outcome, RunConfig, StudentCard, checkpoint_folder, distill,
    steps_done,
};
use training::eval::ModelChoice;
use training::loss::Targets;
use training::metrics::{Metrics, PatchFeatures, SheetRow, contact_sheet};
use training::parallel::Launch;
use training::progress::RunProgress;
use training::recipe::{Recipe, Start};
use training::teacher::{CachedTeacher, Teacher};
use training::vit::Vit;

/// Held-out images on a contact sheet.
const SHEET_ROWS: usize = 6;

/// Arguments of `distill`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model file of the teacher and its precision (f32, half, int8) [default: int8 if the file is quantized, else f32; on a GPU
    /// bf16]
    #[arg(long, value_name = "MODEL[:PRECISION]")]
    teacher: ModelChoice,
    /// Model file that the student starts from [default: the teacher]
    #[arg(long, value_name = "MODEL")]
    start: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

/// Arguments of `distill` and `qat`.
#[derive(clap::Args)]
pub(super) struct RunArgs {
    /// Recipe of the run: training/recipes/*.toml
    #[arg(long, value_name = "FILE")]
    pub(super) recipe: PathBuf,
    /// Folder with the teacher's features, as `cache` writes it
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Images: files, folders, globs, WebDataset shards (.tar, s-{000..012}.tar), manifests of `curate`
    /// (.jsonl); with the feature object-store also s3://, gs://, az:// and https:// addresses of shards or, with a slash at their
    /// end, of folders
    #[arg(long, num_args = 1.., required = true, value_name = "PATH")]
    data: Vec<String>,
    /// Folder of the run: checkpoints, metrics and the student
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// Continue from the last checkpoint in the folder; from the first step if there is none
    #[arg(long)]
    resume: bool,
    /// Stop after this many steps and write a checkpoint
    #[arg(long, value_name = "STEPS")]
    stop_after: Option<u64>,
    /// Minutes between checkpoints. One is also written at the end and on Ctrl-C, SIGTERM or SIGHUP
    #[arg(long, default_value = "10", value_name = "MINUTES")]
    checkpoint_minutes: NonZeroU64,
    /// Steps between checkpoints, in addition to those by time [default: by time alone]
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    checkpoint_every: Option<u64>,
    /// Steps between measurements and contact sheets on held-out images; both are also made at the end
    #[arg(long, default_value_t = 500, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    validate_every: u64,
    /// Device: cpu, or with the feature cuda cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads that load images [default: one per physical core]
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let recipe = Recipe::read(&args.run.recipe)?;
    if recipe.quantize.is_some() {
        bail!(
            "recipe: quantize: expected none for distill (`training qat` learns with roundings): {}",
            args.run.recipe.display()
        );
    }
    let teacher = TeacherModel::open(&args.teacher)?;
    let start = match (recipe.student.start == Start::Scratch, &args.start) {
        (true, None) => None,
        (true, Some(_)) => bail!("--start: expected none with start = \"scratch\" in the recipe"),
        (false, None) => Some(teacher.model.clone()),
        (false, Some(path)) => Some(Model::open(path)?),
    };
    let source = format!("distilled from {}", teacher.model.metadata().provenance.source);
    args.run.train(recipe, &teacher, start.as_ref(), source)
}

impl RunArgs {
    /// Trains a student and prints its path, or how to continue if a signal ended the run. `source`: provenance in the student's file.
    pub(super) fn train(
        self,
        recipe: Recipe,
        teacher_model: &TeacherModel,
        start: Option<&Model>,
        source: String,
    ) -> anyhow::Result<ExitCode> {
        let launch = Launch::from_env()?;
        let is_first = launch.as_ref().is_none_or(|launch| launch.rank == 0);
        let interrupts = Interrupts::listen(is_first.then(|| Messages {
            stopping: "interrupted: a checkpoint is written after this step; a second signal ends the program at once".into(),
            at_once: "interrupted before the first step: nothing is lost".into(),
        }))?;
        let device = device(&self.device, launch.as_ref())?;
        let rank = launch.as_ref().map_or(0, |launch| launch.rank);
        let blocks: Vec<usize> = recipe.loss.taps.iter().map(|pair| pair.teacher_block).collect();
        let dataset = Dataset::open(&self.data)?;
        let identity = teacher_model.identity()?;
        let mut teacher: Box<dyn Teacher> = match &self.cache {
            None => teacher_model
                .teacher(&blocks, &device)
                .map_err(|error| with_recipe_path(error, &self.recipe))?,
            Some(folder) => {
                let images = dataset.fingerprint_hex();
                Box::new(CachedTeacher::open(folder, &identity, &recipe, &images, &device)?.with_rank(rank))
            }
        };
        std::fs::create_dir_all(&self.output).with_context(|| format!("create {}", self.output.display()))?;
        if rank == 0 {
            eprintln!("{} images, {} steps", dataset.len(), recipe.steps());
        }
        let file =
            self.recipe.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let config = RunConfig {
            card: StudentCard {
                source,
                licence: teacher_model.model.metadata().provenance.licence.clone(),
                notes: format!("recipe {file}, {} images", dataset.len()),
                // The student is trained on the recipe's views, not on images resized as the teacher's source resizes them.
                preprocessing: Preprocessing {
                    source_fit: None,
                    ..teacher_model.model.metadata().preprocessing
                },
            },
            output: self.output,
            resume: self.resume,
            stop_after: self.stop_after,
            checkpoint_every: CheckpointEvery {
                steps: self.checkpoint_every,
                time: Duration::from_secs(self.checkpoint_minutes.get().saturating_mul(60)),
            },
            stop: interrupts.stop.clone(),
            validate_every: self.validate_every,
            workers: self.workers.map_or_else(|| dinov2_cpu::default_threads().get(), usize::from),
            device,
            teacher: identity,
            launch,
            recipe,
        };
        if rank > 0 {
            let outcome = distill(&config, start, teacher.as_mut(), dataset, &mut |_| {})
                .map_err(|error| with_recipe_path(error, &self.recipe))?;
            return Ok(match outcome {
                Outcome::Student(_) => ExitCode::SUCCESS,
                Outcome::Stopped { .. } => interrupts.exit_code(),
            });
        }
        let mut reporter = RunReporter::new(&config)?;
        let outcome = distill(&config, start, teacher.as_mut(), dataset, &mut |event| reporter.report(event))
            .map_err(|error| with_recipe_path(error, &self.recipe))?;
        match outcome {
            Outcome::Student(path) => {
                reporter.finish()?;
                println!("{}", path.display());
                Ok(ExitCode::SUCCESS)
            }
            Outcome::Stopped { steps } => {
                reporter.stopped(steps);
                Ok(interrupts.exit_code())
            }
        }
    }
}

/// Writes the events of a run: progress, metrics, pictures. An error of the metrics does not end the run; it is reported at the end.
struct RunReporter {
    metrics: Metrics,
    progress: RunProgress,
    device: Device,
    normalisation: Normalisation,
    /// Steps of the whole run.
    steps: u64,
    /// The last checkpoint.
    checkpoint: Option<PathBuf>,
    first_error: Option<anyhow::Error>,
}

impl RunReporter {
    fn new(config: &RunConfig) -> anyhow::Result<Self> {
        let kept = if config.resume { steps_done(&config.output)? } else { None };
        if config.resume {
            match kept {
                Some(steps) => eprintln!("going on after step {steps} of {}", config.recipe.steps()),
                None => {
                    let folder = checkpoint_folder(&config.output);
                    eprintln!("note: no checkpoint in {}, starting over", folder.display());
                }
            }
        }
        let done = config.resume.then_some(kept.unwrap_or(0));
        Ok(Self {
            metrics: Metrics::create(&config.output, done)?,
            progress: RunProgress::new(config.recipe.steps(), done.unwrap_or(0)),
            device: config.device.clone(),
            normalisation: config.card.preprocessing.normalisation(),
            steps: config.recipe.steps(),
            checkpoint: None,
            first_error: None,
        })
    }

    fn report(&mut self, event: Event<'_>) {
        if let Err(error) = self.try_report(event) {
            self.first_error.get_or_insert(error);
        }
    }

    fn try_report(&mut self, event: Event<'_>) -> anyhow::Result<()> {
        match event {
            Event::Preparing(text) => self.progress.note(&text),
            Event::Step { step, images, report } => {
                let step = step + 1;
                self.metrics.scalar(step, "loss", report.loss)?;
                for (name, term) in &report.terms {
                    self.metrics.scalar(step, &format!("loss/{name}"), *term)?;
                }
                self.metrics.scalar(step, "gradient_norm", report.gradient_norm)?;
                self.metrics.scalar(step, "learning_rate", report.learning_rate)?;
                self.metrics.flush(step)?;
                self.progress.step(step, Some(report.loss), images);
            }
            Event::Validated { steps, agreements, held_out, student } => {
                for Agreement { side_px, patch_median, patch_p5, cls } in agreements {
                    for (name, value) in
                        [("patch_median", patch_median), ("patch_p5", patch_p5), ("cls", cls)]
                    {
                        self.metrics.scalar(steps, &format!("held_out/{side_px}/{name}"), *value)?;
                    }
                    self.progress.note(&format!(
                        "after {steps} steps, held out at {side_px}: patch cosine median {patch_median:.4}, p5 {patch_p5:.4}; \
                         CLS {cls:.4}"
                    ));
                }
                if let Some((batch, targets)) = held_out.first() {
                    let png = self.sheet(batch, targets, student)?;
                    self.metrics.image(steps, "held_out", &png)?;
                }
                self.metrics.flush(steps)?;
            }
            Event::Checkpoint(path) => self.checkpoint = Some(path.into()),
            Event::Unreadable(count) => self.progress.note(&format!("{count} images cannot be read")),
        }
        Ok(())
    }

    /// Held-out images beside the features of teacher and student.
    fn sheet(&self, batch: &Batch, targets: &Targets, student: &Vit) -> anyhow::Result<Vec<u8>> {
        let tokens = training::distill::held_out_tokens(student, batch, self.normalisation, &self.device)?;
        let rows = |tensor: &Tensor| -> anyhow::Result<Vec<Vec<f32>>> {
            let tensor = tensor.to_dtype(DType::F32)?.flatten_from(1)?;
            Ok(tensor.to_vec2()?)
        };
        let (got, want) = (rows(&tokens.patches()?)?, rows(&targets.patches)?);
        let side = batch.student.side_px;
        let mut sheet = Vec::new();
        for ((image, got), want) in batch.student.images().zip(&got).zip(&want).take(SHEET_ROWS) {
            sheet.push(SheetRow {
                image: ImageView::new(image, side, side)?,
                teacher: features(targets.grid, want),
                student: features(tokens.grid, got),
            });
        }
        Ok(contact_sheet(&sheet)?)
    }

    /// Reports how far an interrupted run came, and how to continue.
    fn stopped(self, steps: u64) {
        self.progress.finish();
        if let Some(error) = &self.first_error {
            self.progress.note(&format!("note: not all metrics are written: {}", chain(error.as_ref())));
        }
        let path = self.checkpoint.unwrap_or_default();
        self.progress.note(&format!(
            "stopped after step {steps} of {}; the same command with --resume goes on: {}",
            self.steps,
            path.display()
        ));
    }

    fn finish(self) -> anyhow::Result<()> {
        self.progress.finish();
        self.first_error
            .map_or(Ok(()), |error| Err(error.context("the student is written, but not all metrics are")))
    }
}

fn features(grid: dinov2_core::PatchGrid, patches: &[f32]) -> PatchFeatures<'_> {
    PatchFeatures { grid, dim: patches.len() / grid.len(), patches }
}
