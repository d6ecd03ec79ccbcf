//! `eval`: one table for several models.

use std::fs;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use dinov2_files::Kind;
use dinov2_io::{Fit, PairedImages, Size, list_images};
use training::eval::{
    ClassFolders, Classification, Depth, Fidelity, Ignore, Latency, LoadedModel, ModelChoice, Pictures,
    Report, Robustness, Segmentation, Sequences,
};

/// Most threads that may be asked for.
const MAX_THREADS: usize = 1024;
/// Most rounds of the latency measurement.
const MAX_ROUNDS: u16 = 10_000;

/// Measure models by what their features are good for
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model file and its precision: PATH or PATH:f32, PATH:half, PATH:int8 [default precision: int8 where the file was
    /// measured to meet its gate, else f32]; each is a column of the table
    #[arg(long, value_name = "PATH[:PRECISION]", required = true)]
    model: Vec<ModelChoice>,
    /// Reference model for fidelity; the first column
    #[arg(long, value_name = "PATH[:PRECISION]")]
    teacher: Option<ModelChoice>,
    /// Folder with a folder of images per class (kNN, linear probe); TRAIN,VAL for two of them
    #[arg(long, value_name = "DIR[,DIR]")]
    classes: Option<Folders>,
    /// Size for --classes and --robustness, as in `dinov2-edge run`
    #[arg(long, value_name = "SIZE", default_value = "224")]
    class_size: Size,
    /// Folder with train, trainannot, val and valannot (mIoU of a linear probe)
    #[arg(long, value_name = "DIR")]
    segmentation: Option<PathBuf>,
    /// Label of ignored pixels in --segmentation and --sequences, or `none` [default: 255; in --sequences 255 is the object
    /// of a sequence whose label maps hold only 0 and 255, as in DAVIS 2016]
    #[arg(long, value_name = "ID", value_parser = ignore)]
    ignore: Option<Ignore>,
    /// Folder with train, traindepth, val and valdepth; depth maps are grey PNGs of 16 bits, 0 where unknown (RMSE of a linear probe)
    #[arg(long, value_name = "DIR")]
    depth: Option<PathBuf>,
    /// Metres per unit of a depth map
    #[arg(long, value_name = "METRES", default_value_t = 0.001, value_parser = positive)]
    depth_unit: f64,
    /// Size for --segmentation and --depth
    #[arg(long, value_name = "SIZE", default_value = "252")]
    dense_size: Size,
    /// Images or folders of images, for fidelity to the teacher, and for --robustness without --classes
    #[arg(long, value_name = "PATH", num_args = 1..)]
    images: Vec<PathBuf>,
    /// Most images of --images that are used, evenly spaced
    #[arg(long, value_name = "COUNT", default_value = "200")]
    max_images: NonZeroUsize,
    /// Sizes for fidelity
    #[arg(long, value_name = "SIZE", value_delimiter = ',', default_value = "224")]
    fidelity_size: Vec<Size>,
    /// Corrupt this many images of --classes (or --images): patch cosine to the clean image, kNN accuracy
    #[arg(long, value_name = "COUNT")]
    robustness: Option<NonZeroUsize>,
    /// Folders of frames and of label maps, directly or in subfolders (J&F of label propagation)
    #[arg(long, value_name = "FRAMES,LABELS")]
    sequences: Option<Folders>,
    /// Background label of the first frames, or `none`
    #[arg(long, value_name = "ID", default_value = "0", value_parser = background)]
    background: Background,
    /// Size for --sequences
    #[arg(long, value_name = "SIZE", default_value = "448")]
    sequence_size: Size,
    /// Measure latency at these sizes
    #[arg(long, value_name = "SIZE", value_delimiter = ',')]
    latency: Vec<Size>,
    /// Rounds of the latency measurement
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_ROUNDS)))]
    rounds: u16,
    /// Threads [default: one per physical core]
    #[arg(long, value_parser = threads)]
    threads: Option<NonZeroUsize>,
    /// One JSON object on stdout instead of Markdown
    #[arg(long)]
    json: bool,
    /// Also write eval.md and eval.json into this folder
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// One or two folders.
#[derive(Clone, Debug)]
struct Folders {
    first: PathBuf,
    second: Option<PathBuf>,
}

impl FromStr for Folders {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, second) = match text.split_once(',') {
            Some((first, second)) => (first, Some(second)),
            None => (text, None),
        };
        if first.is_empty() || second.is_some_and(str::is_empty) {
            return Err(format!("expected DIR or DIR,DIR, got {text:?}"));
        }
        Ok(Self { first: first.into(), second: second.map(PathBuf::from) })
    }
}

/// A label, or none.
#[derive(Clone, Copy, Debug)]
struct Background(Option<u8>);

fn background(word: &str) -> Result<Background, String> {
    match word {
        "none" => Ok(Background(None)),
        _ => word.parse().map(|label| Background(Some(label))).map_err(|_| "expected 0..=255 or none".into()),
    }
}

fn ignore(word: &str) -> Result<Ignore, String> {
    match word {
        "none" => Ok(Ignore::Nothing),
        _ => word.parse().map(Ignore::Label).map_err(|_| "expected 0..=255 or none".into()),
    }
}

fn positive(word: &str) -> Result<f64, String> {
    let value = word.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| "expected a positive number".into())
}

fn threads(word: &str) -> Result<NonZeroUsize, String> {
    let count = word.parse().ok().filter(|count: &NonZeroUsize| count.get() <= MAX_THREADS);
    count.ok_or_else(|| format!("expected 1..={MAX_THREADS}"))
}

/// The tasks to measure, checked.
struct Config {
    /// The teacher first, if there is one.
    models: Vec<ModelChoice>,
    teacher: Option<ModelChoice>,
    threads: Option<NonZeroUsize>,
    classification: Option<Classification>,
    segmentation: Option<Segmentation>,
    depth: Option<Depth>,
    fidelity: Option<Fidelity>,
    robustness: Option<Robustness>,
    sequences: Option<Sequences>,
    latency: Option<Latency>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let (json, output) = (args.json, args.output.clone());
    let config = Config::new(args)?;
    let report = config.run()?;
    if let Some(folder) = &output {
        fs::create_dir_all(folder).with_context(|| format!("output: {}", folder.display()))?;
        write_whole(&folder.join("eval.md"), &report.markdown())?;
        write_whole(&folder.join("eval.json"), &(report.json() + "\n"))?;
    }
    let text = if json { report.json() + "\n" } else { report.markdown() };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

impl Config {
    fn new(args: Args) -> anyhow::Result<Self> {
        if args.teacher.is_some() && args.images.is_empty() {
            bail!("eval: expected --images to measure the fidelity to --teacher on, got none");
        }
        let images = listed(&args.images, args.max_images)?;
        let classification =
            args.classes.map(|folders| classification(&folders, args.class_size)).transpose()?;
        let robustness = match (args.robustness, &classification) {
            (None, _) => None,
            (Some(count), Some(Classification { train, .. })) => {
                Some((count, Pictures::Classes(train.clone())))
            }
            (Some(count), None) if !images.is_empty() => Some((count, Pictures::Files(images.clone()))),
            (Some(_), None) => bail!("eval: expected --classes or --images for --robustness, got neither"),
        };
        let robustness = robustness.map(|(count, pictures)| Robustness {
            pictures,
            count: count.get(),
            size: args.class_size,
        });
        let segmentation = args.segmentation.map(|folder| -> anyhow::Result<Segmentation> {
            let [train, val] = pairs(&folder, "annot")?;
            let ignore = match args.ignore {
                Some(Ignore::Label(label)) => label,
                Some(Ignore::Nothing) => bail!("--ignore: expected an ID for --segmentation, got none"),
                _ => 255,
            };
            Ok(Segmentation::new(train, val, ignore, args.dense_size)?)
        });
        let depth = args.depth.map(|folder| -> anyhow::Result<Depth> {
            let [train, val] = pairs(&folder, "depth")?;
            Ok(Depth { train, val, unit_m: args.depth_unit, size: args.dense_size })
        });
        let sequences = args.sequences.map(|folders| -> anyhow::Result<Sequences> {
            let Some(labels) = &folders.second else {
                bail!("eval: expected --sequences FRAMES,LABELS, got {}", folders.first.display());
            };
            let (background, size) = (args.background.0, args.sequence_size);
            Ok(Sequences::open(&folders.first, labels, background, args.ignore.unwrap_or_default(), size)?)
        });
        let fidelity = args.teacher.is_some().then_some(Fidelity { images, sizes: args.fidelity_size });
        let latency = (!args.latency.is_empty())
            .then(|| Latency { sizes: args.latency, rounds: usize::from(args.rounds) });
        let config = Self {
            models: args.teacher.iter().cloned().chain(args.model).collect(),
            teacher: args.teacher,
            threads: args.threads,
            classification,
            segmentation: segmentation.transpose()?,
            depth: depth.transpose()?,
            fidelity,
            robustness,
            sequences: sequences.transpose()?,
            latency,
        };
        if config.notes().is_empty() {
            bail!(
                "eval: expected something to measure, got none of --classes, --segmentation, --depth, --teacher, --robustness, \
                 --sequences and --latency"
            );
        }
        Ok(config)
    }

    fn notes(&self) -> Vec<String> {
        let notes = [
            self.classification.as_ref().map(Classification::note),
            self.segmentation.as_ref().map(Segmentation::note),
            self.depth.as_ref().map(Depth::note),
            self.fidelity.as_ref().map(Fidelity::note),
            self.robustness.as_ref().map(Robustness::note),
            self.sequences.as_ref().map(Sequences::note),
            self.latency.as_ref().map(Latency::note),
        ];
        notes.into_iter().flatten().collect()
    }

    /// Image sizes of all tasks but fidelity, whose sizes are for the teacher's patches.
    fn sizes(&self) -> Vec<Size> {
        let tasks = [
            self.classification.as_ref().map(|task| task.size),
            self.segmentation.as_ref().map(|task| task.size),
            self.depth.as_ref().map(|task| task.size),
            self.robustness.as_ref().map(|task| task.size),
            self.sequences.as_ref().map(Sequences::size),
        ];
        let latency = self.latency.iter().flat_map(|task| task.sizes.iter().copied());
        tasks.into_iter().flatten().chain(latency).collect()
    }

    fn run(&self) -> anyhow::Result<Report> {
        // All files are opened first: a wrong path should fail before minutes of work.
        let facts = self.models.iter().map(ModelChoice::facts).collect::<Result<Vec<_>, _>>()?;
        let teachers = self.fidelity.iter().flat_map(|task| task.sizes.iter().copied());
        for (column, model) in facts.iter().enumerate() {
            for size in self.sizes().into_iter().chain(teachers.clone().filter(|_| column == 0)) {
                Fit::new(size, model.patch_size).with_context(|| model.name.clone())?;
            }
        }
        let mut report = Report::new(facts);
        self.notes().into_iter().for_each(|note| report.note(note));
        for (column, model) in self.models.iter().enumerate() {
            let mut model = model.load(self.threads)?;
            self.evaluate(&mut model, column, &mut report)
                .with_context(|| report.models[column].name.clone())?;
            model.take_notes().into_iter().for_each(|note| report.note(note));
        }
        if let Some(latency) = &self.latency {
            let models = self.models.iter().map(|model| model.load(self.threads));
            let mut models = models.collect::<Result<Vec<LoadedModel>, _>>()?;
            for (column, measures) in latency.evaluate(&mut models)?.into_iter().enumerate() {
                report.add(column, measures);
            }
        }
        Ok(report)
    }

    /// Everything but latency, of one model.
    fn evaluate(&self, model: &mut LoadedModel, column: usize, report: &mut Report) -> anyhow::Result<()> {
        let mut embeddings = None;
        if let Some(classification) = &self.classification {
            let train = embeddings.insert(classification.embed(model)?);
            report.add(column, classification.evaluate(train, model)?);
        }
        if let Some(segmentation) = &self.segmentation {
            report.add(column, segmentation.evaluate(model)?);
        }
        if let Some(depth) = &self.depth {
            report.add(column, depth.evaluate(model)?);
        }
        // The teacher is the first column; it is not compared with itself.
        if let (Some(fidelity), Some(teacher), 1..) = (&self.fidelity, &self.teacher, column) {
            let mut teacher = teacher.load(self.threads)?;
            report.add(column, fidelity.evaluate(&mut teacher, model)?);
            let [of_teacher, own] = fidelity.image_sides(&teacher, model)?;
            report.add(0, of_teacher);
            report.add(column, own);
        }
        if let Some(robustness) = &self.robustness {
            report.add(column, robustness.evaluate(model, embeddings.as_ref())?);
        }
        if let Some(sequences) = &self.sequences {
            report.add(column, sequences.evaluate(model)?);
        }
        Ok(())
    }
}

/// `train` and `val` with `trainKIND` and `valKIND`.
fn pairs(folder: &Path, kind: &str) -> anyhow::Result<[PairedImages; 2]> {
    let open = |name: &str| {
        let maps = folder.join(format!("{name}{kind}"));
        PairedImages::open(&folder.join(name), &maps).with_context(|| name.to_string())
    };
    Ok([open("train")?, open("val")?])
}

fn classification(folders: &Folders, size: Size) -> anyhow::Result<Classification> {
    let train = ClassFolders::open(&folders.first)?;
    let val = folders.second.as_ref().map(|folder| ClassFolders::open_as(folder, &train)).transpose()?;
    Ok(Classification { train, val, size })
}

/// The images of files and folders, at most `most` of them, evenly spaced.
fn listed(inputs: &[PathBuf], most: NonZeroUsize) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for input in inputs {
        if input.is_dir() {
            all.extend(list_images(input)?);
        } else if input.is_file() {
            all.push(input.clone());
        } else {
            bail!("images: expected a file or a folder, got none: {}", input.display());
        }
    }
    let taken = all.len().min(most.get());
    Ok((0..taken).map(|index| all[index * all.len() / taken].clone()).collect())
}

fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    dinov2_files::write_whole(path, Kind::Text, |file| file.write_all(text.as_bytes()))?;
    Ok(())
}
