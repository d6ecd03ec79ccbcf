use candle_core::{DType, Device, Result, Tensor, bail};
use nalgebra::{DMatrix, SymmetricEigen};
use serde::{Deserialize, Serialize};

/// Most principal components that are kept.
pub(super) const MAX_COMPONENTS: usize = 384;
/// Largest magnitude of a stored integer.
const LIMIT: f64 = 127.0;

/// Form of patches and taps in a cache; CLS is 16-bit floats always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// 16-bit floats.
    F16,
    /// 8-bit integers, with a scale per token, of at most 384 principal components.
    Int8,
}

/// Principal components of features, for [`Compression::Int8`].
#[derive(Clone, Debug)]
pub(super) struct Basis {
    /// `[dim]`.
    pub(super) mean: Tensor,
    /// `[components, dim]`, orthonormal rows.
    pub(super) components: Tensor,
}

impl Basis {
    /// Of features with this mean, `[dim]`, and covariance.
    pub(super) fn new(mean: Vec<f64>, covariance: DMatrix<f64>) -> Result<Self> {
        let dim = mean.len();
        if !covariance.iter().all(|value| value.is_finite()) {
            bail!("principal components: expected finite features, got others");
        }
        let eigen = SymmetricEigen::new(covariance);
        let mut order: Vec<usize> = (0..dim).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        order.truncate(MAX_COMPONENTS);
        let rows: Vec<f32> = order
            .iter()
            .flat_map(|&column| {
                eigen.eigenvectors.column(column).iter().map(|v| *v as f32).collect::<Vec<_>>()
            })
            .collect();
        let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
        Ok(Self {
            mean: Tensor::from_vec(mean, dim, &Device::Cpu)?,
            components: Tensor::from_vec(rows, (order.len(), dim), &Device::Cpu)?,
        })
    }

    /// `tokens: [batch, n, dim]` to whole numbers in f32, `[batch, n, components]`, and scales, `[batch, n, 1]`.
    pub(super) fn encode(&self, tokens: &Tensor) -> Result<(Tensor, Tensor)> {
        let (batch, count, dim) = tokens.dims3()?;
        let rows = tokens.reshape((batch * count, dim))?.broadcast_sub(&self.mean)?;
        let rows = rows.matmul(&self.components.t()?)?;
        let scale = ((rows.abs()?.max_keepdim(1)? / LIMIT)? + f64::from(f32::MIN_POSITIVE))?;
        // Rounded to what the file holds before it is divided by.
        let scale = scale.to_dtype(DType::F16)?.to_dtype(DType::F32)?.maximum(6e-8)?;
        let whole = rows.broadcast_div(&scale)?.round()?.clamp(-LIMIT, LIMIT)?;
        Ok((whole.reshape((batch, count, ()))?, scale.reshape((batch, count, 1))?))
    }

    /// The features of what [`Self::encode`] made.
    pub(super) fn decode(&self, whole: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let (batch, count, components) = whole.dims3()?;
        let rows = whole.broadcast_mul(scale)?.reshape((batch * count, components))?;
        rows.matmul(&self.components)?.broadcast_add(&self.mean)?.reshape((batch, count, ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back() {
        let dim = 6;
        let numbers: Vec<f32> =
            (0..2 * 40 * dim).map(|at| 3.0 + (at as f32 * 0.37).sin() * (1 + at % dim) as f32).collect();
        let tokens = Tensor::from_vec(numbers, (2, 40, dim), &Device::Cpu).unwrap();
        let mut statistics = crate::loss::Statistics::new(dim);
        statistics.add(&tokens).unwrap();
        let basis = Basis::new(statistics.mean(), statistics.covariance()).unwrap();
        let (whole, scale) = basis.encode(&tokens).unwrap();
        let back = basis.decode(&whole, &scale).unwrap();
        let error = (&back - &tokens).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(error.sqrt() < 0.05, "{error}");
        let numbers: Vec<f32> = whole.flatten_all().unwrap().to_vec1().unwrap();
        assert!(numbers.iter().all(|number| number.abs() <= 127.0 && number.fract() == 0.0));
    }
}
