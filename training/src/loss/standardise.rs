//! Standardisation of a teacher's features: mean and standard deviation, or PHI-S. Fitted once, then an affine map `[dim]` to `[dim]`.

use candle_core::{Device, Result, Tensor};
use nalgebra::{DMatrix, SymmetricEigen};

use super::hadamard::hadamard;
use crate::recipe::Standardise;

/// Added to standard deviations, relative to their root mean square, because a constant coordinate has none.
const LEAST_DEVIATION: f64 = 1e-3;

/// Errors of fitting a standardisation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StandardiseError {
    /// PHI-S needs a Hadamard matrix.
    #[error(
        "standardise = \"phi-s\": expected a width with a known Hadamard matrix (such as 384, 768, 1024, 1536), got {0}"
    )]
    Width(usize),
    /// No variance at all, or numbers that are not finite.
    #[error(
        "standardise: expected finite features that differ from each other on {rows} tokens, got variance {variance}"
    )]
    Variance {
        /// Tokens seen.
        rows: u64,
        /// Mean variance.
        variance: f64,
    },
    /// The device.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Mean and covariance of a stream of rows.
#[derive(Clone, Debug)]
pub struct Statistics {
    dim: usize,
    rows: u64,
    /// Subtracted first, because sums of squares of numbers far from zero lose digits.
    origin: Vec<f32>,
    sum: Vec<f64>,
    /// `[dim, dim]`.
    products: DMatrix<f64>,
}

impl Statistics {
    /// Of rows of `dim` numbers.
    pub fn new(dim: usize) -> Self {
        Self { dim, rows: 0, origin: Vec::new(), sum: vec![0.0; dim], products: DMatrix::zeros(dim, dim) }
    }

    /// Adds `tokens: [.., dim]`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn add(&mut self, tokens: &Tensor) -> Result<()> {
        let rows = tokens.to_dtype(candle_core::DType::F32)?.reshape(((), self.dim))?;
        let rows = rows.to_device(&Device::Cpu)?;
        if self.origin.is_empty() {
            self.origin = rows.mean(0)?.to_vec1()?;
        }
        let centred = rows.broadcast_sub(&Tensor::new(self.origin.as_slice(), &Device::Cpu)?)?;
        let products: Vec<f32> = centred.t()?.matmul(&centred)?.flatten_all()?.to_vec1()?;
        for (sum, part) in self.products.iter_mut().zip(products) {
            *sum += f64::from(part);
        }
        for (sum, part) in self.sum.iter_mut().zip(centred.sum(0)?.to_vec1::<f32>()?) {
            *sum += f64::from(part);
        }
        self.rows += rows.dim(0)? as u64;
        Ok(())
    }

    /// Mean, `[dim]`.
    pub fn mean(&self) -> Vec<f64> {
        self.sum
            .iter()
            .zip(&self.origin)
            .map(|(sum, origin)| sum / self.rows as f64 + f64::from(*origin))
            .collect()
    }

    /// Covariance, `[dim, dim]`.
    pub fn covariance(&self) -> DMatrix<f64> {
        let count = self.rows.max(1) as f64;
        let offset = nalgebra::DVector::from_iterator(self.dim, self.sum.iter().map(|sum| sum / count));
        &self.products / count - &offset * offset.transpose()
    }
}

/// `(tokens - mean) · matrix`, fitted to a teacher once and stored in checkpoints.
#[derive(Clone, Debug)]
pub struct Standardiser {
    /// `[dim]`.
    pub mean: Tensor,
    /// `[dim]` for a diagonal matrix, else `[dim, dim]`.
    pub matrix: Tensor,
}

impl Standardiser {
    /// Fits a standardisation to statistics.
    ///
    /// # Errors
    /// A width without a Hadamard matrix, numbers that are not finite, constant features.
    pub fn fit(
        kind: Standardise,
        statistics: &Statistics,
        device: &Device,
    ) -> std::result::Result<Self, StandardiseError> {
        let dim = statistics.dim;
        let covariance = statistics.covariance();
        let variance = covariance.trace() / dim as f64;
        if !(variance.is_finite() && variance > 0.0) {
            return Err(StandardiseError::Variance { rows: statistics.rows, variance });
        }
        let (mean, matrix) = match kind {
            Standardise::None => (vec![0.0; dim], vec![1.0; dim]),
            Standardise::MeanStd => {
                let deviation =
                    |at: usize| covariance[(at, at)].max(0.0).sqrt() + LEAST_DEVIATION * variance.sqrt();
                (statistics.mean(), (0..dim).map(|at| 1.0 / deviation(at)).collect())
            }
            Standardise::PhiS => (statistics.mean(), phi_s(covariance, variance)?),
        };
        let narrow = |numbers: Vec<f64>| numbers.into_iter().map(|number| number as f32).collect::<Vec<_>>();
        let shape = if matrix.len() == dim { vec![dim] } else { vec![dim, dim] };
        Ok(Self {
            mean: Tensor::from_vec(narrow(mean), dim, device)?,
            matrix: Tensor::from_vec(narrow(matrix), shape, device)?,
        })
    }

    /// `tokens: [.., dim]`, differentiable.
    ///
    /// # Errors
    /// Another width.
    pub fn apply(&self, tokens: &Tensor) -> Result<Tensor> {
        let centred = tokens.broadcast_sub(&self.mean)?;
        if self.matrix.rank() == 1 {
            return centred.broadcast_mul(&self.matrix);
        }
        let rows = centred.reshape(((), self.mean.elem_count()))?;
        rows.matmul(&self.matrix)?.reshape(tokens.shape())
    }
}

/// `U · Hᵀ / √(dim · mean variance)`, `U` the eigenvectors as columns and `H` a Hadamard matrix: then every coordinate has
/// variance 1.
fn phi_s(covariance: DMatrix<f64>, variance: f64) -> std::result::Result<Vec<f64>, StandardiseError> {
    let dim = covariance.nrows();
    let hadamard = hadamard(dim).ok_or(StandardiseError::Width(dim))?;
    let vectors = SymmetricEigen::new(covariance).eigenvectors;
    // Row-major H read by columns is Hᵀ.
    let matrix = vectors * DMatrix::from_vec(dim, dim, hadamard) / (dim as f64 * variance).sqrt();
    Ok(matrix.transpose().as_slice().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[rows, dim]` with very unequal, correlated columns, far from zero.
    fn tokens(rows: usize, dim: usize) -> Tensor {
        let numbers: Vec<f32> = (0..rows * dim)
            .map(|at| {
                let (row, col) = (at / dim, at % dim);
                let shared = (row as f32 * 0.37).sin();
                (1.0 + col as f32) * ((row * (col + 3)) as f32 * 0.71).sin() + 3.0 * shared + 10.0
            })
            .collect();
        Tensor::from_vec(numbers, (rows, dim), &Device::Cpu).unwrap()
    }

    fn fit(kind: Standardise, tokens: &Tensor) -> std::result::Result<Standardiser, StandardiseError> {
        let mut statistics = Statistics::new(tokens.dim(1).unwrap());
        for part in tokens.chunk(3, 0).unwrap() {
            statistics.add(&part).unwrap();
        }
        Standardiser::fit(kind, &statistics, &Device::Cpu)
    }

    #[test]
    fn every_coordinate_gets_mean_0_and_variance_1() {
        let tokens = tokens(500, 12);
        for kind in [Standardise::MeanStd, Standardise::PhiS] {
            let standard = fit(kind, &tokens).unwrap().apply(&tokens).unwrap();
            let mean: Vec<f32> = standard.mean(0).unwrap().to_vec1().unwrap();
            let variance: Vec<f32> = standard.var(0).unwrap().to_vec1().unwrap();
            assert!(mean.iter().all(|mean| mean.abs() < 1e-4), "{kind:?}: {mean:?}");
            assert!(variance.iter().all(|variance| (variance - 1.0).abs() < 1e-2), "{kind:?}: {variance:?}");
        }
    }

    #[test]
    fn phi_s_keeps_angles_between_differences() {
        let tokens = tokens(60, 12);
        let standard = fit(Standardise::PhiS, &tokens).unwrap().apply(&tokens).unwrap();
        let distance = |rows: &Tensor, a: usize, b: usize| {
            let difference = (rows.get(a).unwrap() - rows.get(b).unwrap()).unwrap();
            difference.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt()
        };
        let factor = distance(&standard, 0, 1) / distance(&tokens, 0, 1);
        for (a, b) in [(2, 9), (5, 44), (31, 17)] {
            let other = distance(&standard, a, b) / distance(&tokens, a, b);
            assert!((other / factor - 1.0).abs() < 1e-3, "{other} {factor}");
        }
    }

    #[test]
    fn what_cannot_be_standardised_is_told() {
        assert!(matches!(fit(Standardise::PhiS, &tokens(50, 7)), Err(StandardiseError::Width(7))));
        let same = Tensor::ones((9, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(fit(Standardise::MeanStd, &same), Err(StandardiseError::Variance { .. })));
        let nan = (same * f64::NAN).unwrap();
        assert!(matches!(fit(Standardise::MeanStd, &nan), Err(StandardiseError::Variance { .. })));
    }
}
