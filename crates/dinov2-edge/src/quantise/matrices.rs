//! Smoothing and rounding of a model's matrices.

use std::collections::BTreeMap;
use std::sync::Mutex;

use dinov2_core::MlpKind;
use dinov2_cpu::Matrix;
use dinov2_kernels::Pool;
use dinov2_weights::quantise::{Feedback, Smoothing, output_error, round_to_nearest, scales};
use dinov2_weights::{Int8Rows, Model, Replacement};

use super::calibration::Calibration;
use super::{Progress, QuantiseError};

/// Smoothing exponents of a block's two LayerNorms; `None` smooths nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Exponents {
    pub(super) attention: Option<f32>,
    pub(super) mlp: Option<f32>,
}

impl Exponents {
    /// Of the LayerNorm before a matrix, where there is one.
    fn before(self, matrix: Matrix) -> Option<f32> {
        match matrix {
            Matrix::Qkv => self.attention,
            Matrix::MlpIn => self.mlp,
            Matrix::Projection | Matrix::MlpOut => None,
        }
    }
}

/// How one matrix came through.
#[derive(Clone, Debug)]
pub struct MatrixReport {
    /// Its name in the model file, without `.weight`.
    pub name: String,
    /// Largest input magnitude over the median channel's largest: how far outliers stand out, after smoothing.
    pub outliers: f32,
    /// Relative error of its outputs on the calibration images, from the rounding of its weights.
    pub output_error: f64,
    /// The same without error feedback.
    pub nearest_error: f64,
}

/// Rounds a model's matrices by its statistics.
pub(super) struct Rounding<'a> {
    pub(super) model: &'a Model,
    pub(super) calibration: &'a Calibration,
    pub(super) limit: u8,
    pub(super) pool: &'a Pool,
}

/// A matrix and its inputs, smoothed.
struct Smoothed {
    name: String,
    /// `[n, k]`.
    weight: Vec<f32>,
    /// Gram matrix of the inputs, `[k, k]`.
    gram: Vec<f32>,
    /// Largest magnitude per input channel, `[k]`.
    largest: Vec<f32>,
    /// γ and β of the LayerNorm that took the factors, with their names.
    norm: Vec<(String, Vec<f32>)>,
}

impl Smoothed {
    fn energy(&self) -> Vec<f32> {
        self.gram.iter().step_by(self.largest.len() + 1).copied().collect()
    }

    fn outliers(&self) -> f32 {
        let mut largest = self.largest.clone();
        largest.sort_by(f32::total_cmp);
        let median = largest[largest.len() / 2];
        largest[largest.len() - 1] / median.max(f32::MIN_POSITIVE)
    }
}

type Replacements = BTreeMap<String, Replacement>;

/// Rounds one matrix, with something to say about it.
type Round<'a, R> = dyn Fn(&Smoothed) -> Result<(Int8Rows, R), QuantiseError> + Sync + 'a;

impl Rounding<'_> {
    /// Every matrix of the blocks, in order.
    fn matrices(&self) -> impl Iterator<Item = (usize, Matrix)> {
        let of_block = [Matrix::Qkv, Matrix::Projection, Matrix::MlpIn, Matrix::MlpOut];
        (0..self.model.spec().depth).flat_map(move |block| of_block.map(|matrix| (block, matrix)))
    }

    fn smoothed(
        &self,
        block: usize,
        matrix: Matrix,
        exponents: Exponents,
    ) -> Result<Smoothed, QuantiseError> {
        let gated = self.model.spec().mlp == MlpKind::SwiGlu;
        let (part, norm) = match matrix {
            Matrix::Qkv => ("attn.qkv", Some("norm1")),
            Matrix::Projection => ("attn.proj", None),
            Matrix::MlpIn => (if gated { "mlp.w12" } else { "mlp.fc1" }, Some("norm2")),
            Matrix::MlpOut => (if gated { "mlp.w3" } else { "mlp.fc2" }, None),
        };
        let inputs = self.calibration.of(block, matrix);
        let name = format!("blocks.{block}.{part}");
        let mut smoothed = Smoothed {
            weight: self.model.f32(&format!("{name}.weight"))?,
            name,
            gram: inputs.gram.clone(),
            largest: inputs.largest.clone(),
            norm: Vec::new(),
        };
        if let (Some(alpha), Some(norm)) = (exponents.before(matrix), norm) {
            let smoothing = Smoothing::new(&smoothed.largest, &smoothed.weight, alpha);
            smoothing.multiply_columns(&mut smoothed.weight);
            smoothing.divide_gram(&mut smoothed.gram);
            smoothing.divide(&mut smoothed.largest);
            for part in ["weight", "bias"] {
                let name = format!("blocks.{block}.{norm}.{part}");
                let mut values = self.model.f32(&name)?;
                smoothing.divide(&mut values);
                smoothed.norm.push((name, values));
            }
        }
        Ok(smoothed)
    }

    /// Calls `round` for every matrix, spread over the threads.
    fn each<R: Send>(
        &self,
        exponents: Exponents,
        round: &Round<'_, R>,
    ) -> Result<(Replacements, Vec<R>), QuantiseError> {
        let all: Vec<(usize, Matrix)> = self.matrices().collect();
        let outcomes = Mutex::new(BTreeMap::new());
        self.pool.run(all.len(), &|task| {
            // The widest inputs take longest: those of the MLP's second matrix come first.
            let index = (task * 4 + 3 - task / (all.len() / 4)) % all.len();
            let (block, matrix) = all[index];
            let outcome = self.smoothed(block, matrix, exponents).and_then(|smoothed| {
                let rounded = round(&smoothed)?;
                Ok((smoothed.name, smoothed.norm, rounded))
            });
            outcomes.lock().expect("no task panics while it holds the map").insert(index, outcome);
        });
        let (mut replacements, mut results) = (Replacements::new(), Vec::new());
        for outcome in outcomes.into_inner().expect("no task panics while it holds the map").into_values() {
            let (name, norm, (rows, result)) = outcome?;
            replacements.insert(format!("{name}.weight"), Replacement::Int8(rows));
            replacements.extend(norm.into_iter().map(|(name, values)| (name, Replacement::F32(values))));
            results.push(result);
        }
        Ok((replacements, results))
    }

    /// Rounded to nearest: quick, to judge exponents by.
    pub(super) fn to_nearest(&self, exponents: Exponents) -> Result<Replacements, QuantiseError> {
        let round = |smoothed: &Smoothed| {
            let scale = scales(&smoothed.weight, &smoothed.energy(), self.limit);
            Ok((round_to_nearest(&smoothed.weight, scale, self.limit), ()))
        };
        Ok(self.each(exponents, &round)?.0)
    }

    /// Rounded with error feedback.
    pub(super) fn with_feedback(
        &self,
        exponents: Exponents,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Replacements, Vec<MatrixReport>), QuantiseError> {
        progress(Progress { stage: "rounding", done: 0, total: 1 });
        self.each(exponents, &|smoothed| {
            let k = smoothed.largest.len();
            let scale = scales(&smoothed.weight, &smoothed.energy(), self.limit);
            let nearest = round_to_nearest(&smoothed.weight, scale.clone(), self.limit);
            let feedback = Feedback::new(&smoothed.gram, k)
                .ok_or_else(|| QuantiseError::Inputs { matrix: smoothed.name.clone() })?;
            let mut rows = Int8Rows { values: vec![0; smoothed.weight.len()], scale };
            let pairs = smoothed.weight.chunks_exact(k).zip(rows.values.chunks_exact_mut(k));
            for ((row, out), &scale) in pairs.zip(&rows.scale) {
                feedback.round_row(row, scale, self.limit, out);
            }
            let report = MatrixReport {
                name: smoothed.name.clone(),
                outliers: smoothed.outliers(),
                output_error: output_error(&smoothed.weight, &rows, &smoothed.gram),
                nearest_error: output_error(&smoothed.weight, &nearest, &smoothed.gram),
            };
            Ok((rows, report))
        })
    }
}
