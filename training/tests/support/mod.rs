//! A small teacher, images, and runs on them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::Device;
use dinov2_cpu::CpuConfig;
use dinov2_weights::{ConvertOptions, Model, Storage, convert};
use tempfile::TempDir;
use training::data::Dataset;
use training::distill::{
    Agreement, CheckpointEvery, DistillError, Event, Outcome, RunConfig, StudentCard, distill,
};
use training::recipe::Recipe;
use training::stop::Stop;
use training::teacher::EngineTeacher;

/// A small teacher: dim 48, 3 blocks, random weights by transformers (`tests/fixtures/make_golden.py`).
pub(crate) fn teacher_model(folder: &Path) -> Model {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/golden/hf_mlp");
    let path = folder.join("teacher.safetensors");
    convert(&source, &path, &ConvertOptions::new(Storage::F32), &mut |_| {}).unwrap();
    Model::open(path).unwrap()
}

/// Images of overlapping waves and discs, all different.
pub(crate) fn pictures(folder: &Path, count: usize) -> PathBuf {
    let images = folder.join("images");
    std::fs::create_dir_all(&images).unwrap();
    for index in 0..count {
        let (width, height) = (64 + index % 5, 60 + index % 7);
        let pixels: Vec<u8> = (0..width * height * 3)
            .map(|at| {
                let (x, y, c) = (at / 3 % width, at / 3 / width, at % 3);
                let phase = index as f32 * 0.9 + c as f32;
                let wave = (x as f32 * 0.11 * (1.0 + index as f32 % 4.0) + phase).sin()
                    * (y as f32 * 0.13 + phase).cos();
                let (dx, dy) = (x as f32 - 12.0 - (index * 7 % 40) as f32, y as f32 - 30.0);
                let disc = if dx * dx + dy * dy < 200.0 { 90.0 * (c as f32 - 1.0) } else { 0.0 };
                (128.0 + 70.0 * wave + disc).clamp(0.0, 255.0) as u8
            })
            .collect();
        let file = std::fs::File::create(images.join(format!("{index:03}.png"))).unwrap();
        let mut encoder = png::Encoder::new(file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    }
    images
}

pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) model: Model,
    pub(crate) images: PathBuf,
}

impl Bench {
    pub(crate) fn new(images: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (model, images) = (teacher_model(folder.path()), pictures(folder.path(), images));
        Self { model, images, folder }
    }

    pub(crate) fn recipe(&self, text: &str) -> Recipe {
        let path = self.folder.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        Recipe::read(&path).unwrap()
    }

    pub(crate) fn dataset(&self) -> Dataset {
        Dataset::open(&[self.images.display().to_string()]).unwrap()
    }

    pub(crate) fn config(&self, recipe: Recipe, run: &str) -> RunConfig {
        RunConfig {
            recipe,
            output: self.folder.path().join(run),
            resume: false,
            stop_after: None,
            checkpoint_every: CheckpointEvery { steps: Some(2), time: Duration::MAX },
            stop: Stop::default(),
            validate_every: 1000,
            workers: 2,
            device: Device::Cpu,
            card: StudentCard {
                source: "a test".into(),
                licence: None,
                notes: String::new(),
                preprocessing: self.model.metadata().preprocessing,
            },
            teacher: "golden".into(),
            launch: None,
        }
    }

    /// Runs; returns the file of the student, losses and the last agreement.
    pub(crate) fn run(
        &self,
        config: &RunConfig,
    ) -> Result<(PathBuf, Vec<f64>, Option<Agreement>), DistillError> {
        self.run_and(config, &mut |_| {})
    }

    /// The same; `on_event` hears of everything before.
    pub(crate) fn run_and(
        &self,
        config: &RunConfig,
        on_event: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(PathBuf, Vec<f64>, Option<Agreement>), DistillError> {
        let blocks: Vec<usize> = config.recipe.loss.taps.iter().map(|pair| pair.teacher_block).collect();
        let mut teacher =
            EngineTeacher::new(&self.model, CpuConfig::default(), &blocks, &Device::Cpu).unwrap();
        let dataset = self.dataset();
        std::fs::create_dir_all(&config.output).unwrap();
        let (mut losses, mut last) = (Vec::new(), None);
        let outcome = distill(config, Some(&self.model), &mut teacher, dataset, &mut |event| {
            on_event(&event);
            match event {
                Event::Step { report, .. } => losses.push(report.loss),
                Event::Validated { agreements, .. } => last = agreements.last().copied(),
                _ => {}
            }
        })?;
        match outcome {
            Outcome::Student(path) => Ok((path, losses, last)),
            Outcome::Stopped { steps } => panic!("nobody asked to stop after {steps} steps"),
        }
    }
}
