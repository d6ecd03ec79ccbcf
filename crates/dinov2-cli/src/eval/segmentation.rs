//! `eval segmentation`: trains a linear probe on patch features per engine and scores it on label maps (mIoU).

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, bail};
use dinov2_edge::heads::{Confusion, LinearProbe, ProbeConfig, ProbeFit};
use dinov2_edge::io::{Fit, Size};
use dinov2_edge::{Engine, Extractor, Features, SelectedEngine, Taps};
use serde_json::{Value, json};

use super::labelled::{Folders, LabelRules, LabelledSet};
use crate::args::EngineArgs;
use crate::engine_choice::EngineChoice;
use crate::progress;

/// Maximum number of feature values of the training set: 8 GiB of f32.
const MAX_TRAINING_VALUES: usize = 1 << 31;
/// Maximum number of classes: labels are u8.
const MAX_CLASSES: i64 = 256;

/// Arguments of `eval segmentation`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Folder with train, trainannot, val and valannot
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Training set: folders of images and label maps (grey or palette PNGs of class ids with the names of the images)
    #[arg(long, value_name = "IMAGES,ANNOTATIONS")]
    train: Option<Folders>,
    /// Validation set: folders of images and label maps
    #[arg(long, value_name = "IMAGES,ANNOTATIONS")]
    val: Option<Folders>,
    /// Label of ignored pixels
    #[arg(long, value_name = "ID", default_value_t = 255)]
    ignore: u8,
    /// Number of classes [default: one more than the largest label of the training set]
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=MAX_CLASSES))]
    classes: Option<u16>,
    /// Image size, as in `run`
    #[arg(long, default_value = "252")]
    size: Size,
    /// Engines to evaluate as well, each with its own probe and with that of the first engine: [MODEL:]BACKEND:PRECISION;
    /// without MODEL, the model of --model
    #[arg(long, value_name = "ENGINE", value_delimiter = ',')]
    candidate: Vec<EngineChoice>,
    /// Weight of the L2 penalty of the probe
    #[arg(long, default_value_t = ProbeConfig::default().l2, value_parser = positive)]
    l2: f64,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn positive(word: &str) -> Result<f64, String> {
    let value = word.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| "expected a positive number".into())
}

/// The checked configuration, without the engines.
struct Task {
    train: LabelledSet,
    val: LabelledSet,
    rules: LabelRules,
    size: Size,
    l2: f64,
}

/// One engine with one probe.
struct Score {
    engine: String,
    probe: String,
    fit: ProbeFit,
    confusion: Confusion,
}

/// A trained probe and the engine whose features it was trained on.
struct Trained {
    engine: String,
    probe: LinearProbe,
    fit: ProbeFit,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let (train, val) = match (&args.data, &args.train, &args.val) {
        (Some(data), None, None) => (Folders::of(data, "train"), Folders::of(data, "val")),
        (None, Some(train), Some(val)) => (train.clone(), val.clone()),
        _ => bail!(crate::usage(
            "eval: expected either --data DIR or both --train and --val IMAGES,ANNOTATIONS"
        )),
    };
    let (train, val) = (LabelledSet::open("train", &train)?, LabelledSet::open("val", &val)?);
    let classes = match args.classes {
        Some(classes) => usize::from(classes),
        None => train.count_classes(args.ignore)?.unwrap_or_default().max(2),
    };
    let rules = LabelRules { classes, ignore: args.ignore };
    train.check(rules)?;
    val.check(rules)?;
    let task = Task { train, val, rules, size: args.size, l2: args.l2 };

    let (_, mut engine) = args.engine.load()?;
    let facts = engine.facts();
    let name = format!("{}:{}", facts.backend, facts.precision);
    let (first, patches) = task.train(&mut engine, &name)?;
    let mut scores = task.score(&mut engine, &name, &[&first])?;
    drop(engine);
    for choice in &args.candidate {
        let mut engine =
            choice.load(args.engine.model.as_deref(), args.engine.threads).context("candidate")?;
        if engine.spec().dim != first.probe.dim() {
            bail!(
                "candidate {choice}: expected features of {} values, got {}",
                first.probe.dim(),
                engine.spec().dim
            );
        }
        let name = choice.to_string();
        let (own, _) = task.train(&mut engine, &name)?;
        scores.extend(task.score(&mut engine, &name, &[&own, &first])?);
    }
    let report = json!({
        "size": task.size.to_string(),
        "classes": classes,
        "ignore": task.rules.ignore,
        "train": { "images": task.train.len(), "patches": patches },
        "val": { "images": task.val.len(), "pixels": scores[0].confusion.total() },
        "scores": scores.iter().map(Score::json).collect::<Vec<_>>(),
    });
    print(&report, args.json)
}

impl Task {
    /// Trains a probe on the training set. Also returns the number of patches.
    fn train(&self, engine: &mut SelectedEngine, name: &str) -> anyhow::Result<(Trained, usize)> {
        let (dim, patch_size) = (engine.spec().dim, engine.spec().patch_size);
        let mut fit = Fit::new(self.size, patch_size).map_err(crate::usage)?;
        let (mut tokens, mut features, mut targets) = (Features::new(), Vec::new(), Vec::new());
        let bar = progress::counter(Some(self.train.len() as u64), "training images")
            .with_message(name.to_string());
        self.train.visit(&mut fit, (self.size, patch_size), self.rules, &bar, |image, grid, labels| {
            engine.extract(image, &Taps::none(), &mut tokens)?;
            if features.len() + tokens.patches().len() > MAX_TRAINING_VALUES {
                bail!("train: expected at most {MAX_TRAINING_VALUES} feature values, got more; try a smaller --size");
            }
            features.extend_from_slice(tokens.patches());
            labels.patch_shares(grid, &mut targets);
            Ok(())
        })?;
        bar.finish_and_clear();
        let threads = engine.facts().threads.unwrap_or(NonZeroUsize::MIN);
        let config = ProbeConfig { l2: self.l2, threads, ..ProbeConfig::default() };
        let bar = progress::counter(Some(config.max_steps as u64), "steps of the probe")
            .with_message(name.to_string());
        let on_step = |_, loss| {
            bar.inc(1);
            bar.set_message(format!("{name}, loss {loss:.4}"));
        };
        let classes = self.rules.classes;
        let (probe, fit) = LinearProbe::fit((&features, dim), (&targets, classes), &config, on_step)
            .with_context(|| format!("probe of {name}"))?;
        bar.finish_and_clear();
        if !fit.converged {
            tell!("note: the probe of {name} did not converge within {} steps", fit.steps);
        }
        Ok((Trained { engine: name.into(), probe, fit }, features.len() / dim))
    }

    /// Scores every probe on the engine's features of the validation set.
    fn score(
        &self,
        engine: &mut SelectedEngine,
        name: &str,
        probes: &[&Trained],
    ) -> anyhow::Result<Vec<Score>> {
        let patch_size = engine.spec().patch_size;
        let mut fit = Fit::new(self.size, patch_size).map_err(crate::usage)?;
        let (mut tokens, mut logits) = (Features::new(), Vec::new());
        let new_score = |trained: &&Trained| Score {
            engine: name.into(),
            probe: trained.engine.clone(),
            fit: trained.fit,
            confusion: Confusion::new(self.rules.classes),
        };
        let mut scores: Vec<Score> = probes.iter().map(new_score).collect();
        let bar = progress::counter(Some(self.val.len() as u64), "validation images")
            .with_message(name.to_string());
        self.val.visit(&mut fit, (self.size, patch_size), self.rules, &bar, |image, grid, labels| {
            engine.extract(image, &Taps::none(), &mut tokens)?;
            for (score, trained) in scores.iter_mut().zip(probes) {
                trained.probe.logits_into(tokens.patches(), &mut logits)?;
                score.confusion.add(&logits, grid, labels)?;
            }
            Ok(())
        })?;
        bar.finish_and_clear();
        Ok(scores)
    }
}

impl Score {
    fn json(&self) -> Value {
        json!({
            "engine": self.engine,
            "probe": self.probe,
            "mean_iou": self.confusion.mean_iou(),
            "pixel_accuracy": self.confusion.accuracy(),
            "class_iou": self.confusion.class_iou(),
            "probe_steps": self.fit.steps,
            "probe_loss": self.fit.loss,
            "probe_converged": self.fit.converged,
        })
    }
}

fn print(report: &Value, as_json: bool) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if as_json {
        writeln!(stdout, "{report}")?;
        return Ok(());
    }
    let (train, val) = (&report["train"], &report["val"]);
    writeln!(
        stdout,
        "size {}; trained on {} images ({} patches), scored on {} images ({} pixels); {} classes, {} ignored",
        report["size"],
        train["images"],
        train["patches"],
        val["images"],
        val["pixels"],
        report["classes"],
        report["ignore"]
    )?;
    let scores = report["scores"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let width =
        scores.iter().map(|score| text(&score["engine"]).len().max(text(&score["probe"]).len())).max();
    let width = width.unwrap_or_default().max("engine".len());
    writeln!(
        stdout,
        "{:<width$}  {:<width$}    mIoU  difference  accuracy  class IoU",
        "engine", "probe of"
    )?;
    let points = |value: &Value| value.as_f64().unwrap_or(f64::NAN) * 100.0;
    let first = scores.first().map_or(f64::NAN, |score| points(&score["mean_iou"]));
    for (index, score) in scores.iter().enumerate() {
        let mean = points(&score["mean_iou"]);
        let difference = if index == 0 { String::new() } else { format!("{:+.2}", mean - first) };
        let classes = score["class_iou"].as_array().map(Vec::as_slice).unwrap_or_default();
        let classes: Vec<String> = classes
            .iter()
            .map(|iou| if iou.is_null() { "-".into() } else { format!("{:.1}", points(iou)) })
            .collect();
        writeln!(
            stdout,
            "{:<width$}  {:<width$}  {mean:>6.2}  {difference:>10}  {:>8.2}  {}",
            text(&score["engine"]),
            text(&score["probe"]),
            points(&score["pixel_accuracy"]),
            classes.join(" ")
        )?;
    }
    Ok(())
}
