//! Ridge regression of one number per patch, fitted from sums that are accumulated image by image.

use nalgebra::{DMatrix, DMatrixView, DVector};

/// A dimension whose variance is below this fraction of the squared mean is constant up to rounding, and is ignored.
const NEGLIGIBLE_VARIANCE: f64 = 1e-12;

/// Errors of the ridge regression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RidgeError {
    /// An array of the wrong length.
    #[error("{what}: expected {expected} values, got {got}")]
    Shape {
        /// Name of the array.
        what: &'static str,
        /// Expected number of values.
        expected: String,
        /// Values given.
        got: usize,
    },
    /// NaN or infinity, or a negative weight.
    #[error("{what}: expected {expected} values, got {value} in patch {patch}")]
    Value {
        /// Name of the array.
        what: &'static str,
        /// Allowed values.
        expected: &'static str,
        /// Index of the patch.
        patch: usize,
        /// The value, as text.
        value: String,
    },
    /// Every weight is zero.
    #[error("ridge regression: expected at least one patch with a target, got none")]
    Empty,
}

/// The data that a [`RidgeProbe`] is fitted to, reduced to sums over weighted patches; the size does not depend on the number of patches.
#[derive(Clone, Debug)]
pub struct RidgeSums {
    dim: usize,
    /// `[dim]`, near the mean; subtracted from every feature before summing, to avoid cancellation.
    origin: Vec<f32>,
    weight: f64,
    /// `[dim + 1, dim + 1]`: weighted products of features and target, less the origin; the target last.
    products: DMatrix<f64>,
    /// `[dim + 1]`
    sums: DVector<f64>,
}

impl RidgeSums {
    /// Empty sums for features of width `dim`.
    pub fn new(dim: usize) -> Self {
        let (products, sums) = (DMatrix::zeros(dim + 1, dim + 1), DVector::zeros(dim + 1));
        Self { dim, origin: Vec::new(), weight: 0.0, products, sums }
    }

    /// Adds patches. features: `[n, dim]`; targets: `[n]`; weights: `[n]`, 0 for a patch without a target.
    ///
    /// # Errors
    /// Shapes that do not match, values that are not finite, negative weights.
    pub fn add(&mut self, features: &[f32], targets: &[f32], weights: &[f32]) -> Result<(), RidgeError> {
        let dim = self.dim;
        self.check(features, targets, weights)?;
        let patches = targets.len();
        if self.origin.is_empty() {
            let columns = DMatrixView::from_slice(features, dim, patches);
            self.origin = columns.column_mean().as_slice().to_vec();
        }
        // Rows of features and target, scaled so that their products carry the weight.
        let mut scaled = DMatrix::zeros(dim + 1, patches);
        for (patch, mut column) in scaled.column_iter_mut().enumerate() {
            let root = weights[patch].sqrt();
            let centred = features[patch * dim..][..dim].iter().zip(&self.origin);
            for (value, (feature, origin)) in column.iter_mut().zip(centred) {
                *value = (feature - origin) * root;
            }
            column[dim] = targets[patch] * root;
            for (sum, value) in self.sums.iter_mut().zip(column.iter()) {
                *sum += f64::from(*value) * f64::from(root);
            }
            self.weight += f64::from(weights[patch]);
        }
        let products = &scaled * scaled.transpose();
        self.products.zip_apply(&products, |sum, product| *sum += f64::from(product));
        Ok(())
    }

    fn check(&self, features: &[f32], targets: &[f32], weights: &[f32]) -> Result<(), RidgeError> {
        let (dim, patches) = (self.dim, targets.len());
        let shape = |what, expected: usize, got| {
            if expected == got && got > 0 {
                return Ok(());
            }
            Err(RidgeError::Shape { what, expected: format!("{expected} (more than none)"), got })
        };
        shape("patch features", patches * dim, features.len())?;
        shape("weights", patches, weights.len())?;
        let all = |what, expected, values: &[f32], width: usize, sound: fn(f32) -> bool| match values
            .iter()
            .position(|value| !sound(*value))
        {
            Some(index) => {
                let value = values[index].to_string();
                Err(RidgeError::Value { what, expected, patch: index / width, value })
            }
            None => Ok(()),
        };
        all("patch features", "finite", features, dim, f32::is_finite)?;
        all("targets", "finite", targets, 1, f32::is_finite)?;
        all("weights", "non-negative", weights, 1, |weight| weight.is_finite() && weight >= 0.0)
    }

    /// The probe that minimises `mean(weight * (prediction - target)^2) + l2 * |weights|^2`, the weights being those of
    /// features standardised by mean and deviation (scikit-learn's `Ridge` with `alpha = l2 * sum(weight)`).
    ///
    /// # Errors
    /// No patches of positive weight.
    ///
    /// # Panics
    /// If `l2` is not positive: the solution would not be unique.
    pub fn solve(&self, l2: f64) -> Result<RidgeProbe, RidgeError> {
        assert!(l2 > 0.0, "l2: expected a positive number, got {l2}");
        if self.weight <= 0.0 {
            return Err(RidgeError::Empty);
        }
        let (dim, mean) = (self.dim, &self.sums / self.weight);
        let covariance = &self.products / self.weight - &mean * mean.transpose();
        let deviation = DVector::from_fn(dim, |index, _| {
            let (variance, value) = (covariance[(index, index)], mean[index] + f64::from(self.origin[index]));
            if variance > NEGLIGIBLE_VARIANCE * value * value { variance.sqrt() } else { f64::INFINITY }
        });
        let system = DMatrix::from_fn(dim, dim, |row, column| {
            let correlation = covariance[(row, column)] / (deviation[row] * deviation[column]);
            if row == column { correlation + l2 } else { correlation }
        });
        let right = DVector::from_fn(dim, |row, _| covariance[(row, dim)] / deviation[row]);
        // Positive definite but for rounding, which the penalty outweighs; LU where it does not.
        let standard = match system.clone().cholesky() {
            Some(factors) => factors.solve(&right),
            None => system.lu().solve(&right).ok_or(RidgeError::Empty)?,
        };
        let weights = standard.component_div(&deviation);
        let bias = mean[dim]
            - weights
                .iter()
                .zip(mean.iter().zip(&self.origin))
                .map(|(weight, (mean, origin))| weight * (mean + f64::from(*origin)))
                .sum::<f64>();
        Ok(RidgeProbe { weights: weights.iter().map(|weight| *weight as f32).collect(), bias })
    }
}

/// A linear function from patch features to one number, such as the logarithm of a depth.
#[derive(Clone, Debug, PartialEq)]
pub struct RidgeProbe {
    /// `[dim]`
    weights: Vec<f32>,
    bias: f64,
}

impl RidgeProbe {
    /// Writes the predictions for `patches: [n, dim]` into `out: [n]`, replacing its content.
    ///
    /// # Errors
    /// A number of values that is not a positive multiple of `dim`.
    pub fn predict_into(&self, patches: &[f32], out: &mut Vec<f32>) -> Result<(), RidgeError> {
        let dim = self.weights.len();
        if patches.is_empty() || !patches.len().is_multiple_of(dim) {
            let expected = format!("a positive multiple of {dim}");
            return Err(RidgeError::Shape { what: "patch features", expected, got: patches.len() });
        }
        out.clear();
        out.extend(patches.chunks_exact(dim).map(|patch| {
            let products = patch.iter().zip(&self.weights).map(|(value, weight)| f64::from(value * weight));
            (products.sum::<f64>() + self.bias) as f32
        }));
        Ok(())
    }
}
