//! The engine that runs model files and ONNX files by tract. Input: normalised f32 pixels `[1, 3, height, width]`, made here from u8.
//!
//! A plan is optimised for one grid and one choice of taps; two are kept. It runs one image at a time and allocates on every frame.

use std::num::NonZeroUsize;
use std::path::Path;

use dinov2_core::{ExtractError, Extractor, Features, ImageView, PatchGrid, Tap, Taps, VitSpec, limits};
use dinov2_weights::onnx::proto::ModelProto;
use dinov2_weights::{Model, Normalisation, position};
use tract::prelude::DatumType;

use crate::BACKEND;
use crate::export::wrap;
use crate::file_graph::FileGraph;
use crate::plan::{Plan, PlanInput, Threads};
use crate::vit_graph::{GraphSize, vit_graph};
use crate::weights::OnnxWeights;
use crate::{OnnxError, Precision};

/// Plans kept at once: each holds its own packed copy of the weights.
const MAX_PLANS: usize = 2;

/// How an [`OnnxEngine`] runs.
#[derive(Clone, Copy, Debug)]
pub struct OnnxConfig {
    /// Threads of matrix products.
    pub threads: NonZeroUsize,
}

/// Runs a model by tract: a model file, through an export of our own in memory, or an ONNX file.
///
/// tract optimises a graph for one size, so the first frame of a grid (or of other taps) takes about a second more than
/// the next. Unlike the native engine, tract allocates on every frame.
pub struct OnnxEngine {
    source: Source,
    threads: Threads,
    thread_count: NonZeroUsize,
    plans: Vec<(PatchGrid, Taps, ReadyPlan)>,
    /// `[3, height, width]`, normalised.
    pixels: Vec<f32>,
}

enum Source {
    Model { weights: Box<OnnxWeights>, table: Vec<f32>, normalisation: Normalisation, label: String },
    File(Box<FileGraph>),
}

struct ReadyPlan {
    plan: Plan,
    /// The resampled position table, for graphs that take it as their second input.
    positions: Option<Vec<f32>>,
}

impl OnnxEngine {
    /// Runs a model file.
    ///
    /// # Errors
    /// A weight that cannot be read.
    pub fn from_model(model: &Model, config: OnnxConfig) -> Result<Self, OnnxError> {
        let preprocessing = &model.metadata().preprocessing;
        Ok(Self::new(
            Source::Model {
                weights: Box::new(OnnxWeights::embedded(model, Precision::F32)?),
                table: model.f32("pos_embed")?,
                normalisation: Normalisation { mean: preprocessing.mean, std: preprocessing.std },
                label: model.label().into(),
            },
            config,
        ))
    }

    /// Runs the backbone of an ONNX file, ours or a third party's. What follows the backbone in the graph (a head, a
    /// decoder) is left out. Only the final tokens can be had of it, and only sizes that its input allows.
    ///
    /// # Errors
    /// A file that cannot be read, is no ONNX, or holds no DINOv2 backbone.
    pub fn open(path: &Path, config: OnnxConfig) -> Result<Self, OnnxError> {
        Ok(Self::new(Source::File(Box::new(FileGraph::open(path)?)), config))
    }

    fn new(source: Source, config: OnnxConfig) -> Self {
        let threads = Threads::new(config.threads.get());
        Self { source, threads, thread_count: config.threads, plans: Vec::new(), pixels: Vec::new() }
    }

    /// Threads of matrix products.
    pub fn thread_count(&self) -> NonZeroUsize {
        self.thread_count
    }

    /// Makes the plan of this grid and these taps the last of `plans`.
    fn prepare(&mut self, grid: PatchGrid, taps: &Taps) -> Result<(), ExtractError> {
        let known = self.plans.iter().position(|(of, with, _)| *of == grid && with == taps);
        let plan = match known {
            Some(index) => self.plans.remove(index),
            None => {
                if self.plans.len() >= MAX_PLANS {
                    self.plans.remove(0);
                }
                (grid, taps.clone(), self.source.plan(grid, taps, &self.threads)?)
            }
        };
        self.plans.push(plan);
        Ok(())
    }
}

impl Source {
    fn spec(&self) -> &VitSpec {
        match self {
            Self::Model { weights, .. } => &weights.spec,
            Self::File(file) => &file.spec,
        }
    }

    fn normalisation(&self) -> &Normalisation {
        match self {
            Self::Model { normalisation, .. } => normalisation,
            Self::File(file) => &file.normalisation,
        }
    }

    fn plan(&self, grid: PatchGrid, taps: &Taps, threads: &Threads) -> Result<ReadyPlan, ExtractError> {
        let failed = |problem: String| ExtractError::failed(BACKEND, problem);
        let spec = self.spec();
        let patch = spec.patch_size;
        let mut pixels =
            PlanInput { shape: vec![1, 3, grid.rows * patch, grid.cols * patch], datum_type: DatumType::F32 };
        match self {
            Self::Model { weights, table, label, .. } => {
                let table = position::resample(table, spec.position_table, grid, spec.position_convention)
                    .map_err(failed)?;
                let graph = vit_graph(weights, &GraphSize::Static(grid, &table), taps)
                    .map_err(|error| ExtractError::failed(BACKEND, error))?;
                ready(&wrap(graph), vec![pixels], None, threads, label)
            }
            Self::File(file) => {
                if let Some(tap) = taps.iter().next() {
                    return Err(ExtractError::Misuse(format!(
                        "tap {tap}: expected only the final tokens of an ONNX file (convert it to a model file for more), got it asked of {}",
                        file.label
                    )));
                }
                if file.half_pixels {
                    pixels.datum_type = DatumType::F16;
                }
                let positions = file.positions(grid).map_err(ExtractError::Misuse)?;
                let shape = vec![1, 1 + grid.len(), spec.dim];
                let table = positions.is_some().then_some(PlanInput { shape, datum_type: DatumType::F32 });
                let inputs = std::iter::once(pixels).chain(table).collect();
                ready(&file.model, inputs, positions, threads, &file.label)
            }
        }
    }
}

fn ready(
    model: &ModelProto,
    inputs: Vec<PlanInput>,
    positions: Option<Vec<f32>>,
    threads: &Threads,
    label: &str,
) -> Result<ReadyPlan, ExtractError> {
    let refused = |problem| OnnxError::Tract { problem, path: label.into() };
    let plan = Plan::new(model, inputs, threads).map_err(refused);
    Ok(ReadyPlan { plan: plan.map_err(|error| ExtractError::failed(BACKEND, error))?, positions })
}

impl Extractor for OnnxEngine {
    fn spec(&self) -> &VitSpec {
        self.source.spec()
    }

    fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError> {
        let spec = self.source.spec();
        let grid = image.grid(spec.patch_size)?;
        taps.check(spec)?;
        if grid.len() > limits::MAX_PATCHES {
            return Err(ExtractError::TooManyPatches { patches: grid.len(), most: limits::MAX_PATCHES });
        }
        self.prepare(grid, taps)?;
        normalise(image, self.source.normalisation(), &mut self.pixels);
        let Some((_, _, ready)) = self.plans.last() else {
            return Err(ExtractError::failed(BACKEND, "tract: expected a plan, got none"));
        };
        out.prepare(self.source.spec(), grid, taps);
        let wanted: Vec<Tap> = taps.iter().collect();
        let positions = ready.positions.as_deref();
        let inputs: Vec<&[f32]> = std::iter::once(self.pixels.as_slice()).chain(positions).collect();
        let copy = |index: usize, values: &[f32]| {
            let target = match index.checked_sub(1) {
                None => Some(out.tokens_mut()),
                Some(tap) => wanted.get(tap).and_then(|&tap| out.tap_mut(tap)),
            };
            let target = target.ok_or("outputs: expected tokens and taps, got more")?;
            if target.len() != values.len() {
                return Err(format!(
                    "output {index}: expected {} numbers, got {}",
                    target.len(),
                    values.len()
                ));
            }
            target.copy_from_slice(values);
            Ok(())
        };
        let label = match &self.source {
            Source::Model { label, .. } => label,
            Source::File(file) => &file.label,
        };
        ready.plan.run(&inputs, &self.threads, copy).map_err(|problem| {
            ExtractError::failed(BACKEND, OnnxError::Tract { problem, path: label.clone() })
        })
    }
}

/// RGB bytes as `[3, height, width]`: `(value / 255 - mean) / std`.
fn normalise(image: ImageView<'_>, normalisation: &Normalisation, out: &mut Vec<f32>) {
    let plane = image.width_px() * image.height_px();
    out.resize(3 * plane, 0.0);
    for (channel, out) in out.chunks_exact_mut(plane).enumerate() {
        let (mean, std) = (normalisation.mean[channel], normalisation.std[channel]);
        let table: [f32; 256] = std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
        for (out, pixel) in out.iter_mut().zip(image.pixels().as_chunks::<3>().0) {
            *out = table[usize::from(pixel[channel])];
        }
    }
}
