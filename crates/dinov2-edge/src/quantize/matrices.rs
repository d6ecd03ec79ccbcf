//! Smoothing and rounding of a model's matrices to int8 and int4.

use std::collections::BTreeMap;
use std::sync::Mutex;

use dinov2_core::MlpKind;
use dinov2_cpu::Matrix;
use dinov2_kernels::Pool;
use dinov2_weights::quantize::{
    Feedback, Smoothing, output_error, round_to_nearest, round_to_nearest_int4, scales,
};
use dinov2_weights::{Model, Numbers, fits_int4};

use super::calibration::Calibration;
use super::{Progress, QuantizeError, Target};

/// Smoothing exponents of a block's two LayerNorms; `None`: no smoothing.
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

/// Result of quantizing one matrix.
#[derive(Clone, Debug)]
pub struct MatrixReport {
    /// Name in the model file, without `.weight`.
    pub name: String,
    /// Bits per weight: 8 or 4.
    pub bits: u8,
    /// Number of weights.
    pub weights: usize,
    /// Outliers after smoothing: largest input magnitude divided by the median over the channels of their largest magnitude.
    pub outliers: f32,
    /// Relative error of the outputs on the calibration images, caused by rounding the weights.
    pub output_error: f64,
    /// The same when rounding to nearest, without error feedback.
    pub nearest_error: f64,
    /// For a matrix that stays int8 in an int4 file: its output error in int4.
    pub int4_error: Option<f64>,
}

/// Rounds the matrices of a model by their statistics.
pub(super) struct Rounding<'a> {
    pub(super) model: &'a Model,
    pub(super) calibration: &'a Calibration,
    pub(super) limit: u8,
    pub(super) target: Target,
    pub(super) pool: &'a Pool,
}

/// A matrix and the statistics of its inputs, after smoothing.
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
        self.gram.iter().step_by(self.k() + 1).copied().collect()
    }

    /// Number of weights per row.
    fn k(&self) -> usize {
        self.largest.len()
    }

    /// The int4 group if int4 is requested and rows are whole groups.
    fn group(&self, target: Target) -> Option<usize> {
        match target {
            Target::Int4 { group, .. } => Some(group).filter(|&group| fits_int4(&[0, self.k()], group)),
            Target::Int8 => None,
        }
    }

    fn outliers(&self) -> f32 {
        let mut largest = self.largest.clone();
        largest.sort_by(f32::total_cmp);
        let median = largest[largest.len() / 2];
        largest[largest.len() - 1] / median.max(f32::MIN_POSITIVE)
    }
}

type Replacements = BTreeMap<String, Numbers>;

/// Rounds one matrix and returns a value about it.
type Round<'a, R> = dyn Fn(&Smoothed) -> Result<(Numbers, R), QuantizeError> + Sync + 'a;

impl Rounding<'_> {
    /// All matrices of the blocks, in order.
    fn matrices(&self) -> Vec<(usize, Matrix)> {
        let of_block = [Matrix::Qkv, Matrix::Projection, Matrix::MlpIn, Matrix::MlpOut];
        (0..self.model.spec().depth).flat_map(|block| of_block.map(|matrix| (block, matrix))).collect()
    }

    fn smoothed(
        &self,
        block: usize,
        matrix: Matrix,
        exponents: Exponents,
    ) -> Result<Smoothed, QuantizeError> {
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

    /// Calls `round` for these matrices on all threads. Norms and matrices go into `replacements`; returns the other values in order.
    fn each<R: Send>(
        &self,
        exponents: Exponents,
        matrices: &[(usize, Matrix)],
        replacements: &mut Replacements,
        round: &Round<'_, R>,
    ) -> Result<Vec<R>, QuantizeError> {
        let mut order: Vec<usize> = (0..matrices.len()).collect();
        // Matrices with the widest inputs, the second of the MLP, take longest and come first.
        order.sort_by_key(|&index| matrices[index].1 != Matrix::MlpOut);
        let outcomes = Mutex::new(BTreeMap::new());
        self.pool.run(order.len(), &|task| {
            let index = order[task];
            let (block, matrix) = matrices[index];
            let outcome = self.smoothed(block, matrix, exponents).and_then(|smoothed| {
                let (replacement, result) = round(&smoothed)?;
                Ok((smoothed.name, smoothed.norm, replacement, result))
            });
            outcomes.lock().expect("no task panics while it holds the map").insert(index, outcome);
        });
        let mut results = Vec::new();
        for outcome in outcomes.into_inner().expect("no task panics while it holds the map").into_values() {
            let (name, norm, replacement, result) = outcome?;
            replacements.insert(format!("{name}.weight"), replacement);
            replacements.extend(norm.into_iter().map(|(name, values)| (name, Numbers::F32(values))));
            results.push(result);
        }
        Ok(results)
    }

    /// Rounds to nearest: fast, used to search the exponents.
    pub(super) fn to_nearest(&self, exponents: Exponents) -> Result<Replacements, QuantizeError> {
        let mut replacements = Replacements::new();
        self.each(exponents, &self.matrices(), &mut replacements, &|smoothed| {
            let energy = smoothed.energy();
            let replacement = match smoothed.group(self.target) {
                Some(group) => Numbers::Int4(round_to_nearest_int4(&smoothed.weight, &energy, group)),
                None => {
                    let scale = scales(&smoothed.weight, &energy, self.limit);
                    Numbers::Int8(round_to_nearest(&smoothed.weight, scale, self.limit))
                }
            };
            Ok((replacement, ()))
        })?;
        Ok(replacements)
    }

    /// Rounds with error feedback. For int4, the matrices whose outputs change most are then rounded to int8 instead.
    pub(super) fn with_feedback(
        &self,
        exponents: Exponents,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Replacements, Vec<MatrixReport>), QuantizeError> {
        progress(Progress { stage: "rounding", done: 0, total: 1 });
        let all = self.matrices();
        let mut replacements = Replacements::new();
        let mut reports =
            self.each(exponents, &all, &mut replacements, &|smoothed| match smoothed.group(self.target) {
                Some(group) => int4(smoothed, group),
                None => int8(smoothed, self.limit),
            })?;
        if let Target::Int4 { int8_share, .. } = self.target {
            let stay = most_changed(&reports, int8_share);
            let matrices: Vec<_> = stay.iter().map(|&index| all[index]).collect();
            let again =
                self.each(exponents, &matrices, &mut replacements, &|smoothed| int8(smoothed, self.limit))?;
            for (index, report) in stay.into_iter().zip(again) {
                let int4_error = Some(reports[index].output_error);
                reports[index] = MatrixReport { int4_error, ..report };
            }
        }
        Ok((replacements, reports))
    }
}

type Rounded = Result<(Numbers, MatrixReport), QuantizeError>;

fn int8(smoothed: &Smoothed, limit: u8) -> Rounded {
    let scale = scales(&smoothed.weight, &smoothed.energy(), limit);
    let nearest = round_to_nearest(&smoothed.weight, scale.clone(), limit).to_f32();
    let rows = feedback(smoothed, smoothed.k())?.int8(&smoothed.weight, scale, limit);
    let report = report(smoothed, 8, &rows.to_f32(), &nearest);
    Ok((Numbers::Int8(rows), report))
}

fn int4(smoothed: &Smoothed, group: usize) -> Rounded {
    let nearest = round_to_nearest_int4(&smoothed.weight, &smoothed.energy(), group).to_f32();
    let groups = feedback(smoothed, group)?.int4(&smoothed.weight);
    let report = report(smoothed, 4, &groups.to_f32(), &nearest);
    Ok((Numbers::Int4(groups), report))
}

fn feedback(smoothed: &Smoothed, group: usize) -> Result<Feedback, QuantizeError> {
    Feedback::new(&smoothed.gram, smoothed.k(), group)
        .ok_or_else(|| QuantizeError::Inputs { matrix: smoothed.name.clone() })
}

fn report(smoothed: &Smoothed, bits: u8, rounded: &[f32], nearest: &[f32]) -> MatrixReport {
    MatrixReport {
        name: smoothed.name.clone(),
        bits,
        weights: smoothed.weight.len(),
        outliers: smoothed.outliers(),
        output_error: output_error(&smoothed.weight, rounded, &smoothed.gram),
        nearest_error: output_error(&smoothed.weight, nearest, &smoothed.gram),
        int4_error: None,
    }
}

/// Indices of the int4 matrices whose outputs change most, as many as fit into `share` of all weights.
fn most_changed(reports: &[MatrixReport], share: f64) -> Vec<usize> {
    let total: usize = reports.iter().map(|report| report.weights).sum();
    let mut order: Vec<usize> = (0..reports.len()).filter(|&index| reports[index].bits == 4).collect();
    order.sort_by(|&x, &y| reports[y].output_error.total_cmp(&reports[x].output_error));
    let mut room = share * total as f64;
    order.retain(|&index| {
        let weights = reports[index].weights as f64;
        let fits = weights <= room;
        room -= if fits { weights } else { 0.0 };
        fits
    });
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_changed_matrices_stay_int8_within_the_share() {
        let report = |(bits, weights, output_error)| MatrixReport {
            name: String::new(),
            bits,
            weights,
            outliers: 1.0,
            output_error,
            nearest_error: 0.1,
            int4_error: None,
        };
        let reports =
            [(4, 100, 0.03), (4, 300, 0.05), (8, 100, 0.9), (4, 100, 0.04), (4, 400, 0.02)].map(report);
        assert!(most_changed(&reports, 0.0).is_empty());
        // 0.05 does not fit into 0.2 of 1000 weights, what comes after it does.
        assert_eq!(most_changed(&reports, 0.2), [0, 3]);
        assert_eq!(most_changed(&reports, 0.45), [1, 3]);
        assert_eq!(most_changed(&reports, 1.0), [0, 1, 3, 4]);
    }
}
