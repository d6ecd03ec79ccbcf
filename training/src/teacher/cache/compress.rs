//! Features as 8-bit integers: centred, projected on principal components where they are wide, one scale per token.

use candle_core::{Device, Result, Tensor, bail};
use half::f16;
use nalgebra::{DMatrix, SymmetricEigen};
use serde::{Deserialize, Serialize};

/// Most principal components that are stored.
pub(super) const MAX_COMPONENTS: usize = 384;
/// Largest magnitude of a stored integer.
const LIMIT: f32 = 127.0;
/// Least standard deviation of a component, relative to the largest: a few images may show none where other images have
/// some.
const LEAST_DEVIATION: f64 = 0.01;

/// Form of patches and taps in a cache; CLS is 16-bit floats always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Compression {
    /// 16-bit floats.
    F16,
    /// 8-bit integers with a scale per token; of features wider than 384, principal components.
    Int8,
}

/// The transform before rounding to 8 bits, for [`Compression::Int8`]: the mean is subtracted, wide features are projected on principal
/// components, and each component is divided by its spread.
///
/// The spread is the square root of the standard deviation. A token's components share one scale: undivided, those that vary
/// most would leave few bits to the others; divided by the deviation itself, unimportant components would get as many bits as important ones.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    /// `[dim]`.
    pub(super) mean: Tensor,
    /// `[components]`.
    pub(super) spread: Tensor,
    /// `[components, dim]`, orthonormal rows; `None` where every coordinate is a component.
    pub(super) directions: Option<Tensor>,
}

/// Tokens encoded by [`Basis::encode`].
pub(super) struct Encoded {
    /// `[batch, n, components]`.
    pub(super) whole: Vec<i8>,
    pub(super) shape: [usize; 3],
    /// `[batch, n, 1]`.
    pub(super) scale: Vec<f16>,
}

impl Basis {
    /// Of features with this mean, `[dim]`, and covariance.
    pub(super) fn new(mean: Vec<f64>, covariance: DMatrix<f64>) -> Result<Self> {
        let dim = mean.len();
        if !covariance.iter().all(|value| value.is_finite()) {
            bail!("principal components: expected finite features, got others");
        }
        let (variances, directions) = if dim <= MAX_COMPONENTS {
            (covariance.diagonal().iter().copied().collect(), None)
        } else {
            let (variances, directions) = principal_components(covariance);
            (variances, Some(Tensor::from_vec(directions, (MAX_COMPONENTS, dim), &Device::Cpu)?))
        };
        let vector = |numbers: Vec<f64>| {
            let numbers: Vec<f32> = numbers.into_iter().map(|number| number as f32).collect();
            Tensor::new(numbers, &Device::Cpu)
        };
        Ok(Self { mean: vector(mean)?, spread: vector(spreads(&variances))?, directions })
    }

    /// `tokens: [batch, n, dim]`.
    pub(super) fn encode(&self, tokens: &Tensor) -> Result<Encoded> {
        let (batch, count, dim) = tokens.dims3()?;
        let mut centred = tokens.reshape((batch * count, dim))?.broadcast_sub(&self.mean)?;
        if let Some(directions) = &self.directions {
            centred = centred.matmul(&directions.t()?)?;
        }
        let mut numbers: Vec<f32> = centred.flatten_all()?.to_vec1()?;
        let inverse: Vec<f32> = self.spread.recip()?.to_vec1()?;
        let (mut whole, mut scales) = (vec![0; numbers.len()], Vec::with_capacity(batch * count));
        for (row, whole) in numbers.chunks_exact_mut(inverse.len()).zip(whole.chunks_exact_mut(inverse.len()))
        {
            let mut largest = 0.0f32;
            for (number, inverse) in row.iter_mut().zip(&inverse) {
                *number *= inverse;
                largest = largest.max(number.abs());
            }
            // The scale is rounded to f16 before the division, because the file stores f16.
            let scale = f16::from_f32(largest / LIMIT).max(f16::MIN_POSITIVE_SUBNORMAL);
            let factor = scale.to_f32().recip();
            for (whole, number) in whole.iter_mut().zip(row) {
                *whole = (*number * factor).round_ties_even().clamp(-LIMIT, LIMIT) as i8;
            }
            scales.push(scale);
        }
        Ok(Encoded { whole, shape: [batch, count, inverse.len()], scale: scales })
    }

    /// Inverts [`Self::encode`]: `whole: [batch, n, components]`, `scale: [batch, n, 1]`.
    pub(super) fn decode(&self, whole: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let (batch, count, components) = whole.dims3()?;
        let rows = whole.broadcast_mul(scale)?.broadcast_mul(&self.spread)?;
        let mut rows = rows.reshape((batch * count, components))?;
        if let Some(directions) = &self.directions {
            rows = rows.matmul(directions)?;
        }
        rows.broadcast_add(&self.mean)?.reshape((batch, count, ()))
    }
}

/// The largest variances of features with this covariance, and their directions: `[MAX_COMPONENTS, dim]`.
fn principal_components(covariance: DMatrix<f64>) -> (Vec<f64>, Vec<f32>) {
    let eigen = SymmetricEigen::new(covariance);
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    order.truncate(MAX_COMPONENTS);
    let variances = order.iter().map(|&column| eigen.eigenvalues[column]).collect();
    let mut directions = Vec::new();
    for &column in &order {
        directions.extend(eigen.eigenvectors.column(column).iter().map(|&number| number as f32));
    }
    (variances, directions)
}

/// Roots of standard deviations, none of them 0.
fn spreads(variances: &[f64]) -> Vec<f64> {
    let deviations = || variances.iter().map(|variance| variance.max(0.0).sqrt());
    let largest = deviations().fold(0.0, f64::max);
    // Constant features have no deviation.
    let least = if largest > 0.0 { LEAST_DEVIATION * largest } else { 1.0 };
    deviations().map(|deviation| deviation.max(least).sqrt()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(dim: usize, number: impl Fn(usize, usize) -> f32) -> Tensor {
        let numbers: Vec<f32> = (0..80 * dim).map(|at| number(at / dim, at % dim)).collect();
        Tensor::from_vec(numbers, (2, 40, dim), &Device::Cpu).unwrap()
    }

    fn basis(tokens: &Tensor) -> Basis {
        let mut statistics = crate::loss::Statistics::new(tokens.dim(2).unwrap());
        statistics.add(tokens).unwrap();
        Basis::new(statistics.mean(), statistics.covariance()).unwrap()
    }

    /// Root mean square of what differs afterwards, of each number of a token.
    fn errors(basis: &Basis, tokens: &Tensor) -> Vec<f32> {
        let Encoded { whole, shape: [batch, count, components], scale } = basis.encode(tokens).unwrap();
        let numbers = whole.into_iter().map(f32::from).collect();
        let whole = Tensor::from_vec(numbers, (batch, count, components), &Device::Cpu).unwrap();
        let scales = scale.into_iter().map(f16::to_f32).collect();
        let scale = Tensor::from_vec(scales, (batch, count, 1), &Device::Cpu).unwrap();
        let error = (basis.decode(&whole, &scale).unwrap() - tokens).unwrap().flatten_to(1).unwrap();
        error.sqr().unwrap().mean(0).unwrap().sqrt().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let tokens = tokens(6, |token, at| 3.0 + ((token * 6 + at) as f32 * 0.37).sin() * (1 + at) as f32);
        let errors = errors(&basis(&tokens), &tokens);
        assert!(errors.iter().all(|&error| error < 0.05), "{errors:?}");
    }

    /// In one scale for all, numbers of size 1 beside one of size 60 would be .14 off.
    #[test]
    fn what_varies_much_leaves_bits_to_what_varies_little() {
        let size = |at: usize| if at == 2 { 60.0 } else { 1.0 };
        let tokens = tokens(6, |token, at| size(at) * ((1 + token * token * (at + 3)) as f32 * 0.37).sin());
        let errors = errors(&basis(&tokens), &tokens);
        assert!(errors.iter().enumerate().all(|(at, &error)| error < 0.04 * size(at).sqrt()), "{errors:?}");
    }

    #[test]
    fn features_that_are_all_the_same_come_back() {
        let tokens = tokens(4, |_, at| at as f32);
        assert!(errors(&basis(&tokens), &tokens).iter().all(|&error| error < 1e-6));
    }

    /// More coordinates than are kept: those of 400 that vary come back, whatever the directions in which they do.
    #[test]
    fn wide_features_come_back_from_their_components() {
        let wave = |token: usize, at: usize| ((1 + token * token * (at + 3)) as f32 * 0.37).sin();
        let few: Vec<Vec<f32>> = (0..80).map(|token| (0..5).map(|at| wave(token, at)).collect()).collect();
        let tokens = tokens(400, |token, at| {
            few[token].iter().enumerate().map(|(part, number)| number * wave(at, part + 9)).sum()
        });
        let basis = basis(&tokens);
        assert_eq!(basis.directions.as_ref().unwrap().dims(), [MAX_COMPONENTS, 400]);
        let errors = errors(&basis, &tokens);
        assert!(errors.iter().all(|&error| error < 0.02), "{errors:?}");
    }

    /// A basis of few tokens does not know all directions: those that it has not seen are no worse off.
    #[test]
    fn what_the_basis_has_not_seen_comes_back() {
        let all = tokens(6, |token, at| ((1 + token * token * (at + 3)) as f32 * 0.37).sin());
        let few = all.narrow(0, 0, 1).unwrap().narrow(1, 0, 4).unwrap();
        let errors = errors(&basis(&few), &all);
        assert!(errors.iter().all(|&error| error < 0.1), "{errors:?}");
    }
}
