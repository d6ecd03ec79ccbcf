//! `curate`: chooses images to train on.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::interrupt::{Interrupts, Messages};
use clap::ValueEnum;
use dinov2_cpu::{CpuPrecision, default_threads};
use serde_json::json;
use training::curate::{CurateConfig, CurateModel, Sameness, Summary, curate};
use training::progress::Bar;

/// Arguments of `curate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Images to choose from: files, folders, globs, .tar shards (also s-{000..012}.tar), manifests; addresses as for `distill`
    #[arg(required_unless_present = "video", value_name = "SOURCE")]
    data: Vec<String>,
    /// Folder for manifest.jsonl, report.md and the results of scanning, which a second run reuses
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// Model file whose class tokens are the embeddings [default: the bundled vits14-focus-int8]
    #[arg(long, short)]
    model: Option<PathBuf>,
    /// Precision of the model
    #[arg(long, value_enum, default_value = "int8")]
    precision: Precision,
    /// Side of the square that images are resized to for the model
    #[arg(long, default_value_t = 224, value_name = "PIXELS")]
    side: usize,
    /// Principal directions removed from the embeddings, besides their mean: what most images have in common
    #[arg(long, default_value_t = 4, value_name = "DIRECTIONS")]
    common_directions: usize,
    /// Many different images to measure mean and directions on, or the common.json of another run [default: the images to choose from; with
    /// --video or fewer than 64 images the bundled model's own, or MODEL.common.json if it exists]
    #[arg(long, num_args = 1.., value_name = "SOURCE")]
    reference: Vec<String>,
    /// Images of evaluation sets: images that show the same are left out
    #[arg(long, num_args = 1.., value_name = "SOURCE")]
    evaluation: Vec<String>,
    /// The robot's own frames: images nearest to them are taken first
    #[arg(long, num_args = 1.., value_name = "SOURCE")]
    seeds: Vec<String>,
    /// Images taken per frame of the robot
    #[arg(long, default_value_t = 4, value_name = "IMAGES")]
    per_seed: usize,
    /// Images wanted [default: all that remain]
    #[arg(long)]
    count: Option<usize>,
    /// Frames of videos to choose from, too: those of a folder or shard are one video, in natural order of their names or as they lie in
    /// the shard. Of frames that hardly differ one is kept
    #[arg(long, num_args = 1.., value_name = "SOURCE")]
    video: Vec<String>,
    /// Least cosine of two frames that show the same; a higher value keeps more frames
    #[arg(long, default_value_t = THIN_COSINE, value_name = "COSINE", requires = "video")]
    thin_cosine: f32,
    /// Least cosine of two images that show the same, unless both are frames
    #[arg(long, default_value_t = DUPLICATES.cosine, value_name = "COSINE")]
    duplicate_cosine: f32,
    /// Least cosine of duplicates that are connected only through other images
    #[arg(long, default_value_t = 0.5, value_name = "COSINE")]
    chained_cosine: f32,
    /// Least cosine of an image that shows the same as one of an evaluation set
    #[arg(long, default_value_t = LEAKS.cosine, value_name = "COSINE")]
    evaluation_cosine: f32,
    /// Least cosine in both cases where perceptual hashes agree
    #[arg(long, default_value_t = DUPLICATES.hashed_cosine, value_name = "COSINE")]
    hashed_cosine: f32,
    /// Most bits of 64 in which perceptual hashes that agree differ
    #[arg(long, default_value_t = DUPLICATES.hash_distance, value_name = "BITS")]
    hash_distance: u32,
    /// Nearest neighbours that are searched for duplicates
    #[arg(long, default_value_t = 32)]
    neighbours: usize,
    /// Clusters per level, the finest first, such as 20000,2000,200 [default: a 50th of the images, and a tenth of that twice]
    #[arg(long, value_delimiter = ',')]
    levels: Vec<usize>,
    /// Rounds of resampling per level
    #[arg(long, default_value_t = 10, value_name = "ROUNDS")]
    resampling: usize,
    /// Iterations of each k-means at most
    #[arg(long, default_value_t = 20)]
    iterations: usize,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads [default: one per physical core]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Calibrated with the bundled model on 900 unlike photographs, 120 of which came in ten altered versions. Of their 404,550 pairs,
/// one lies at .7 or above, and none has hashes within 10 bits. Above .7 lie all versions encoded again, 99 % of those resized, cropped to .9
/// or made lighter, 96 % of the mirrored, 78 % of those cropped to .75; hashes find the small and the grey.
const DUPLICATES: Sameness = Sameness { cosine: 0.7, hashed_cosine: 0.3, hash_distance: 8 };
/// An image that should have stayed costs less than an evaluation that was seen in training: ten times as many pairs of unlike photographs.
const LEAKS: Sameness = Sameness { cosine: 0.6, hashed_cosine: 0.3, hash_distance: 8 };
/// Calibrated with the bundled model and what is known of it, on CamVid's drives: the least threshold at which a linear probe learns no
/// less from the frames that are left (docs/benchmarks.md).
const THIN_COSINE: f32 = 0.8;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Precision {
    Int8,
    F32,
}

impl Args {
    fn config(self) -> CurateConfig {
        let same = |cosine| Sameness {
            cosine,
            hashed_cosine: self.hashed_cosine.min(cosine),
            hash_distance: self.hash_distance,
        };
        CurateConfig {
            duplicates: same(self.duplicate_cosine),
            chained_cosine: self.chained_cosine,
            leaks: same(self.evaluation_cosine),
            frames: self.video,
            thin_cosine: self.thin_cosine,
            precision: match self.precision {
                Precision::Int8 => CpuPrecision::Int8,
                Precision::F32 => CpuPrecision::F32,
            },
            threads: self.threads.unwrap_or_else(default_threads),
            data: self.data,
            evaluation: self.evaluation,
            reference: self.reference,
            seeds: self.seeds,
            out: self.output,
            model: self.model.map_or(CurateModel::Bundled, CurateModel::File),
            side_px: self.side,
            common_directions: self.common_directions,
            neighbours: self.neighbours,
            levels: self.levels,
            resampling: self.resampling,
            iterations: self.iterations,
            count: self.count,
            per_seed: self.per_seed,
            seed: self.seed,
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let json = args.json;
    let config = args.config();
    let scan = config.out.join("scan");
    Interrupts::listen(Some(Messages {
        stopping: String::new(),
        at_once: format!(
            "interrupted: results of the images read so far are kept; the same command goes on: {}",
            scan.display()
        ),
    }))?;
    // A pool that exists already is used instead.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(config.threads.get()).build_global();
    let mut progress = PhaseProgress::new();
    let summary = curate(&config, &mut |phase, done| progress.report(phase, done));
    progress.bar.finish();
    print(&summary?, &config, json)
}

/// Steps of the bar, which shows parts of a phase.
const STEPS: u64 = 1_000;
/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// How far a phase of curation is.
struct PhaseProgress {
    bar: Bar,
    phase: &'static str,
}

impl PhaseProgress {
    fn new() -> Self {
        let bar = Bar::new(STEPS, "{bar:30} {percent} % {msg} ETA {eta}", LINE_EVERY);
        Self { bar: bar.with_late_lines(), phase: "" }
    }

    /// `done`: of the phase, from 0 to 1.
    fn report(&mut self, phase: &'static str, done: f64) {
        if phase != self.phase {
            self.phase = phase;
            self.bar.restart(phase);
        }
        self.bar.set_position((done * STEPS as f64) as u64);
        self.bar.plain_line(false, || format!("{phase}: {:.1} %", 100.0 * done));
    }
}

fn print(summary: &Summary, config: &CurateConfig, json: bool) -> anyhow::Result<()> {
    let (manifest, report) = (config.out.join("manifest.jsonl"), config.out.join("report.md"));
    let (kept, images) = (summary.kept(), summary.reasons.len());
    let mut stdout = std::io::stdout().lock();
    if json {
        let line = json!({ "kept": kept, "images": images, "levels": summary.levels, "advice": summary.advice, "manifest": manifest, "report": report });
        writeln!(stdout, "{line}")?;
    } else {
        if let Some(advice) = &summary.advice {
            eprintln!("note: {advice}");
        }
        writeln!(
            stdout,
            "kept {kept} of {images} images: {} (why: {})",
            manifest.display(),
            report.display()
        )?;
    }
    Ok(())
}
