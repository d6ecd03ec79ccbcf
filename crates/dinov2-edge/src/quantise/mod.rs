//! Calibrated int8 quantisation of a model file.
//!
//! Images go through the f32 engine once, for the statistics of every matrix's inputs. Then the smoothing exponent is
//! searched, separately for the two LayerNorms of a block, on the patch cosine of the int8 engine itself; then every
//! matrix is rounded with error feedback. The fidelity that ends up in the file is measured on images that nothing was
//! fitted to.

mod calibration;
mod matrices;

use std::num::NonZeroUsize;
use std::path::Path;

use dinov2_core::{ExtractError, Extractor, Features, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision, LoadError};
use dinov2_kernels::Pool;
use dinov2_weights::{ConvertError, Fidelity, Model, ModelError, Quantisation, write_int8};

pub use calibration::Picture;
pub use matrices::MatrixReport;

use calibration::Calibration;
use matrices::{Exponents, Rounding};

/// Smoothing exponents that are tried besides none (quantisation literature: 0.3 to 0.7).
const EXPONENTS: [f32; 4] = [0.35, 0.45, 0.55, 0.65];

/// Images that the exponents are judged by.
const JUDGES: usize = 8;

/// Images of one size: to fit to, and to measure with.
#[derive(Clone, Debug)]
pub struct ImageSet {
    /// Short side of the images.
    pub size_px: usize,
    /// What scales and roundings are fitted to.
    pub calibration: Vec<Picture>,
    /// What the fidelity is measured on.
    pub held_out: Vec<Picture>,
}

/// How a model is quantised.
#[derive(Clone, Copy, Debug)]
pub struct QuantiseOptions {
    /// Largest magnitude of a weight, in units of its scale: 127, or 64 for CPUs that sum products in 16 bits.
    pub weight_limit: u8,
    /// Threads.
    pub threads: NonZeroUsize,
}

/// Where a quantisation is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is being done.
    pub stage: &'static str,
    /// Steps done.
    pub done: usize,
    /// Steps of this stage.
    pub total: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Smoothing exponents of the attention's and the MLP's LayerNorm; `None` where none was best.
    pub exponents: [Option<f32>; 2],
    /// Per matrix, in the order of the blocks.
    pub matrices: Vec<MatrixReport>,
    /// What went into the file.
    pub quantisation: Quantisation,
}

/// Why a model was not quantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantiseError {
    /// No images to fit to, or none to measure with.
    #[error("calibration: expected at least {needed} images, got {got}")]
    TooFewImages {
        /// Least number.
        needed: usize,
        /// Number given.
        got: usize,
    },
    /// The model is int8 already: its rounding errors cannot be undone.
    #[error("quantize: expected a model in f32, f16 or bf16, got int8: {0}")]
    AlreadyInt8(String),
    /// The inputs of a matrix are not finite, or all zero.
    #[error("{matrix}: expected finite inputs on the calibration images, got none")]
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
    /// No place for temporary files.
    #[error("temporary folder: {0}")]
    Temporary(#[from] std::io::Error),
}

/// Least number of images that [`quantise`] takes.
pub const LEAST_IMAGES: usize = 4;

/// Quantises `model` to `output`. `images`: at least one size with at least one image each to fit to and to measure
/// with; the exponents are judged by the first size's.
///
/// # Errors
/// Too few images, a model that is int8 already, files that cannot be read or written.
pub fn quantise(
    model: &Model,
    images: &[ImageSet],
    options: QuantiseOptions,
    output: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, QuantiseError> {
    if model.metadata().storage == dinov2_weights::Storage::Int8 {
        return Err(QuantiseError::AlreadyInt8(model.label().into()));
    }
    let count = images.iter().map(|set| set.calibration.len().min(set.held_out.len())).min().unwrap_or(0);
    if count == 0 {
        return Err(QuantiseError::TooFewImages { needed: LEAST_IMAGES, got: 0 });
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
    let rounding = Rounding { model, calibration: &calibration, limit: options.weight_limit, pool: &pool };
    let scratch = tempfile::tempdir()?;
    let trial = scratch.path().join("trial.safetensors");
    let judges = &images[0].calibration[..JUDGES.min(images[0].calibration.len())];
    let exponents = search(&rounding, &mut exact, config, judges, &trial, progress)?;

    let (replacements, matrices) = rounding.with_feedback(exponents, progress)?;
    write_int8(model, &replacements, None, &trial)?;
    let mut quantised = int8_engine(&trial, config)?;
    let mut fidelity = Vec::new();
    for (done, set) in images.iter().enumerate() {
        progress(Progress { stage: "fidelity", done, total: images.len() });
        let cosines = patch_cosines(&mut exact, &mut quantised, &set.held_out)?;
        let at = |share: f64| cosines[((cosines.len() - 1) as f64 * share).round() as usize];
        fidelity.push(Fidelity {
            size_px: set.size_px as u32,
            patches: cosines.len() as u32,
            median: at(0.5),
            p5: at(0.05),
        });
    }
    let calibration_images = pictures.len() as u32;
    let quantisation = Quantisation { weight_limit: options.weight_limit, calibration_images, fidelity };
    write_int8(model, &replacements, Some(quantisation.clone()), output)?;
    Ok(Report { exponents: [exponents.attention, exponents.mlp], matrices, quantisation })
}

fn int8_engine(path: &Path, config: CpuConfig) -> Result<CpuEngine, QuantiseError> {
    let mut config = config;
    config.precision = CpuPrecision::Int8;
    Ok(CpuEngine::new(&Model::open(path)?, config)?)
}

/// The exponents with the best mean patch cosine: first the same for both norms, then each by itself.
fn search(
    rounding: &Rounding<'_>,
    exact: &mut CpuEngine,
    config: CpuConfig,
    judges: &[Picture],
    trial: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Exponents, QuantiseError> {
    let choices: Vec<Option<f32>> = std::iter::once(None).chain(EXPONENTS.map(Some)).collect();
    let (mut done, total) = (0, 3 * choices.len());
    let mut judge = |exponents: Exponents| -> Result<f64, QuantiseError> {
        progress(Progress { stage: "smoothing", done, total });
        done += 1;
        write_int8(rounding.model, &rounding.to_nearest(exponents)?, None, trial)?;
        let cosines = patch_cosines(exact, &mut int8_engine(trial, config)?, judges)?;
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

/// Cosine per patch between two engines, ascending.
fn patch_cosines(
    exact: &mut CpuEngine,
    candidate: &mut CpuEngine,
    pictures: &[Picture],
) -> Result<Vec<f64>, QuantiseError> {
    let (mut want, mut got) = (Features::new(), Features::new());
    let mut cosines = Vec::new();
    for picture in pictures {
        exact.extract(picture.view(), &Taps::none(), &mut want)?;
        candidate.extract(picture.view(), &Taps::none(), &mut got)?;
        let dim = want.dim();
        let rows = want.patches().chunks_exact(dim).zip(got.patches().chunks_exact(dim));
        cosines.extend(rows.map(|(want, got)| crate::cosine(want, got)));
    }
    cosines.sort_by(f64::total_cmp);
    Ok(cosines)
}
