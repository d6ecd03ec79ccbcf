//! Calibrated int8 and int4 quantization of a model file.
//!
//! 1. The f32 engine runs the calibration images; the statistics of every matrix's inputs are collected.
//! 2. The smoothing exponents of the two LayerNorms of a block are searched, judged by the patch cosine of the int8 engine.
//! 3. Every matrix is rounded with error feedback.
//! 4. The fidelity, which is stored in the file, is measured on held-out images.
//!
//! int4 is a storage format: the int8 engine runs such files, and their fidelity is measured with it. int4 files are not smoothed.

//!
//! ```
//! use dinov2_edge::default_threads;
//! use dinov2_edge::quantize::{ImageSet, Picture, QuantizeOptions, Target, quantize};
//! use dinov2_edge::weights::{ConvertOptions, Model, Storage, convert};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let checkpoint = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/golden/hf_mlp").as_ref();
//! # let folder = tempfile::tempdir()?;
//! # let (exact, output) = (folder.path().join("f32.safetensors"), folder.path().join("int8.safetensors"));
//! convert(checkpoint, &exact, &ConvertOptions::new(Storage::F32), &mut |_| {})?;
//! let model = Model::open(&exact)?;
//!
//! // Images on the patch grid. Some hundred photographs of the place where the model will work are better than these.
//! let side = 4 * model.spec().patch_size;
//! let picture = |shift: usize| Picture {
//!     pixels: (0..side * side * 3).map(|at| (at * at + shift * at) as u8).collect(),
//!     width_px: side,
//!     height_px: side,
//! };
//! let images = ImageSet {
//!     size_px: side,
//!     calibration: (1..4).map(picture).collect(),
//!     held_out: (4..6).map(picture).collect(),
//! };
//! let options = QuantizeOptions { target: Target::Int8, weight_limit: 64, threads: default_threads() };
//! let report = quantize(&model, &[images], options, &output, &mut |_| {})?;
//! assert_eq!(report.matrices.len(), 4 * model.spec().depth);
//! assert!(report.quantization.fidelity[0].median > 0.9);
//! # Ok(())
//! # }
//! ```

mod calibration;
mod matrices;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use dinov2_core::statistics::cosine;
use dinov2_core::{ExtractError, Extractor, Features, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision, LoadError};
use dinov2_kernels::Pool;
use dinov2_weights::{
    ConvertError, Fidelity, Model, ModelError, Numbers, Quantization, Storage, write_quantized,
};

pub use calibration::Picture;
pub use matrices::MatrixReport;

use calibration::Calibration;
use matrices::{Exponents, Rounding};

/// Smoothing exponents that are tried, besides no smoothing (quantization literature: 0.3 to 0.7).
const EXPONENTS: [f32; 4] = [0.35, 0.45, 0.55, 0.65];

/// Number of images for the search of the exponents.
const JUDGES: usize = 8;

/// Images of one size.
#[derive(Clone, Debug)]
pub struct ImageSet {
    /// Short side of the images.
    pub size_px: usize,
    /// Images for the statistics.
    pub calibration: Vec<Picture>,
    /// Images for measuring the fidelity.
    pub held_out: Vec<Picture>,
}

/// The storage of the quantized matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// int8 with a scale per output channel.
    Int8,
    /// int4 with a scale and a zero point per group. Matrices whose rows are not whole groups stay int8.
    Int4 {
        /// Weights per group, one of [`dinov2_weights::INT4_GROUPS`].
        group: usize,
        /// Maximum share of the weights, 0..=1, that stay int8: the matrices whose outputs int4 would change most.
        int8_share: f64,
    },
}

/// Options of the quantization.
#[derive(Clone, Copy, Debug)]
pub struct QuantizeOptions {
    /// The storage of the matrices.
    pub target: Target,
    /// Largest magnitude of a quantized weight: 127, or 64 for CPUs that sum products in 16 bits.
    pub weight_limit: u8,
    /// Threads.
    pub threads: NonZeroUsize,
}

/// Progress of the quantization.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Name of the current stage.
    pub stage: &'static str,
    /// Completed steps of this stage.
    pub done: usize,
    /// Total steps of this stage.
    pub total: usize,
}

/// Report of a quantization.
#[derive(Clone, Debug)]
pub struct Report {
    /// Smoothing exponents of the attention's and the MLP's LayerNorm; `None` if no smoothing was best.
    pub exponents: [Option<f32>; 2],
    /// Results per matrix, in the order of the blocks.
    pub matrices: Vec<MatrixReport>,
    /// The metadata that was stored in the file.
    pub quantization: Quantization,
}

/// Errors of quantizing a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// Too few images.
    #[error("calibration: expected at least {needed} images, got {got}")]
    TooFewImages {
        /// Minimum number of images.
        needed: usize,
        /// Actual number.
        got: usize,
    },
    /// The model is already int8 or int4; its rounding errors cannot be undone.
    #[error("quantize: expected a model in f32, f16 or bf16, got {storage}: {model}")]
    AlreadyQuantized {
        /// int8 or int4.
        storage: Storage,
        /// The model.
        model: String,
    },
    /// An engine computed NaN or infinity.
    #[error("quantize: expected finite features on the images, got NaN or infinity")]
    Features,
    /// The inputs of a matrix are not finite, or all zero.
    #[error("{matrix}: expected finite, non-zero inputs on the calibration images")]
    Inputs {
        /// The matrix.
        matrix: String,
    },
    /// The model cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model cannot be written.
    #[error(transparent)]
    Write(#[from] ConvertError),
    /// An engine cannot load the model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An engine cannot run an image.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The folder for temporary files cannot be created.
    #[error("cannot make a temporary folder")]
    Temporary(#[from] std::io::Error),
}

/// Minimum number of images for [`quantize`].
pub const LEAST_IMAGES: usize = 4;

/// Checks that a model is not already quantized.
///
/// # Errors
/// [`QuantizeError::AlreadyQuantized`].
pub fn check(model: &Model) -> Result<(), QuantizeError> {
    match model.metadata().storage {
        Storage::F32 | Storage::F16 | Storage::Bf16 => Ok(()),
        storage @ (Storage::Int8 | Storage::Int4) => {
            Err(QuantizeError::AlreadyQuantized { storage, model: model.label().into() })
        }
    }
}

/// Quantizes `model` to `output`. `images`: at least one size, with at least one calibration image and one held-out image each. The
/// exponents are searched on the first size.
///
/// # Errors
/// Too few images, a model that [`check`] refuses, files that cannot be read or written.
pub fn quantize(
    model: &Model,
    images: &[ImageSet],
    options: QuantizeOptions,
    output: impl Into<dinov2_files::Target>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, QuantizeError> {
    check(model)?;
    let count = images.iter().map(|set| set.calibration.len().min(set.held_out.len())).min().unwrap_or(0);
    if count == 0 {
        return Err(QuantizeError::TooFewImages { needed: LEAST_IMAGES, got: 0 });
    }
    let config = CpuConfig::with_threads(options.threads);
    let mut exact = CpuEngine::new(model, config)?;
    let pool = Pool::new(options.threads);
    let mut calibration = Calibration::default();
    let pictures: Vec<&Picture> = images.iter().flat_map(|set| &set.calibration).collect();
    for (done, picture) in pictures.iter().enumerate() {
        progress(Progress { stage: "statistics", done, total: pictures.len() });
        calibration.add(&mut exact, &pool, picture)?;
    }
    let rounding = Rounding {
        model,
        calibration: &calibration,
        limit: options.weight_limit,
        target: options.target,
        pool: &pool,
    };
    let scratch = tempfile::tempdir()?;
    let judges = &images[0].calibration[..JUDGES.min(images[0].calibration.len())];
    let mut quantization = Quantization {
        weight_limit: options.weight_limit,
        int4_group: match options.target {
            Target::Int8 => None,
            Target::Int4 { group, .. } => Some(group),
        },
        calibration_images: pictures.len() as u32,
        trained: false,
        fidelity: Vec::new(),
    };
    let trial = Trial { path: scratch.path().join("trial.safetensors"), quantization: &quantization, config };
    let exponents = match options.target {
        Target::Int8 => search(&rounding, &mut exact, &trial, judges, progress)?,
        // No smoothing for int4: it moves range from the inputs to the weights, and made the tail of the patch cosine worse
        // (docs/benchmarks.md).
        Target::Int4 { .. } => Exponents::default(),
    };

    let (replacements, matrices) = rounding.with_feedback(exponents, progress)?;
    let mut quantized = trial.engine(model, &replacements)?;
    let mut fidelity = Vec::new();
    for (done, set) in images.iter().enumerate() {
        progress(Progress { stage: "fidelity", done, total: images.len() });
        let cosines = patch_cosines(&mut exact, &mut quantized, &set.held_out)?;
        let at = |share: f64| cosines[((cosines.len() - 1) as f64 * share).round() as usize];
        fidelity.push(Fidelity {
            size_px: set.size_px as u32,
            patches: cosines.len() as u32,
            median: at(0.5),
            p5: at(0.05),
        });
    }
    quantization.fidelity = fidelity;
    write_quantized(model, &replacements, quantization.clone(), output)?;
    Ok(Report { exponents: [exponents.attention, exponents.mlp], matrices, quantization })
}

/// A temporary model file for the search of the exponents.
struct Trial<'a> {
    path: PathBuf,
    quantization: &'a Quantization,
    config: CpuConfig,
}

impl Trial<'_> {
    /// Writes a file with these replacements and opens the int8 engine with it.
    fn engine(
        &self,
        model: &Model,
        replacements: &BTreeMap<String, Numbers>,
    ) -> Result<CpuEngine, QuantizeError> {
        write_quantized(model, replacements, self.quantization.clone(), &self.path)?;
        let mut config = self.config;
        config.precision = CpuPrecision::Int8;
        Ok(CpuEngine::new(&Model::open(&self.path)?, config)?)
    }
}

/// The exponents with the best mean patch cosine: first the same exponent for both norms, then each one separately.
fn search(
    rounding: &Rounding<'_>,
    exact: &mut CpuEngine,
    trial: &Trial<'_>,
    judges: &[Picture],
    progress: &mut dyn FnMut(Progress),
) -> Result<Exponents, QuantizeError> {
    let choices: Vec<Option<f32>> = std::iter::once(None).chain(EXPONENTS.map(Some)).collect();
    let (mut done, total) = (0, 3 * choices.len());
    let mut judge = |exponents: Exponents| -> Result<f64, QuantizeError> {
        progress(Progress { stage: "smoothing", done, total });
        done += 1;
        let mut candidate = trial.engine(rounding.model, &rounding.to_nearest(exponents)?)?;
        let cosines = patch_cosines(exact, &mut candidate, judges)?;
        Ok(cosines.iter().sum::<f64>() / cosines.len() as f64)
    };
    let mut best = (f64::NEG_INFINITY, Exponents::default());
    let vary = |best: Exponents| {
        let both = |&choice: &Option<f32>| Exponents { attention: choice, mlp: choice };
        [
            choices.iter().map(both).collect::<Vec<_>>(),
            choices.iter().map(|&attention| Exponents { attention, ..best }).collect(),
            choices.iter().map(|&mlp| Exponents { mlp, ..best }).collect(),
        ]
    };
    for stage in 0..3 {
        let start = best.1;
        for candidate in std::mem::take(&mut vary(start)[stage]) {
            let score = judge(candidate)?;
            if score > best.0 {
                best = (score, candidate);
            }
        }
    }
    Ok(best.1)
}

/// Cosines of corresponding patches of two engines, ascending.
fn patch_cosines(
    exact: &mut CpuEngine,
    candidate: &mut CpuEngine,
    pictures: &[Picture],
) -> Result<Vec<f64>, QuantizeError> {
    let (mut want, mut got) = (Features::new(), Features::new());
    let mut cosines = Vec::new();
    for picture in pictures {
        exact.extract(picture.view(), &Taps::none(), &mut want)?;
        candidate.extract(picture.view(), &Taps::none(), &mut got)?;
        let dim = want.dim();
        let rows = want.patches().chunks_exact(dim).zip(got.patches().chunks_exact(dim));
        cosines.extend(rows.map(|(want, got)| cosine(want, got)));
    }
    if cosines.iter().any(|cosine| !cosine.is_finite()) {
        return Err(QuantizeError::Features);
    }
    cosines.sort_by(f64::total_cmp);
    Ok(cosines)
}
