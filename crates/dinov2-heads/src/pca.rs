//! Principal components of patch features `[n, dim]`. [`crate::PcaView`] turns them into colours.

use nalgebra::{DMatrix, DVector};

/// Maximum number of patches that a basis is fitted to; of more, every k-th is used.
pub const MAX_FIT_PATCHES: usize = 4_096;
/// Extra directions of the iteration, so that near-equal variances converge.
const EXTRA_DIRECTIONS: usize = 13;
/// Maximum number of iterations before the full eigendecomposition is computed instead.
const MAX_ROUNDS: usize = 60;
/// Tolerance of the residual of an eigenvector, relative to the largest eigenvalue; f32 features have a precision of 1e-7.
const TOLERANCE: f64 = 1e-9;
/// Variances below this fraction of the largest are rounding errors, and their directions arbitrary.
const NEGLIGIBLE_VARIANCE: f64 = 1e-12;

/// Errors of the principal component analysis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PcaError {
    /// A number of values that is not a positive multiple of `dim`.
    #[error("patch features: expected a positive multiple of {dim} values, got {got}")]
    Shape {
        /// Width of a patch feature.
        dim: usize,
        /// Values given.
        got: usize,
    },
    /// More components than dimensions, or none.
    #[error("principal components: expected 1..={dim}, got {got}")]
    Components {
        /// Width of a patch feature.
        dim: usize,
        /// Requested components.
        got: usize,
    },
    /// NaN or infinity among the features.
    #[error("patch features: expected finite values, got {value} in patch {patch}")]
    NotFinite {
        /// Index of the patch.
        patch: usize,
        /// The value, as text.
        value: String,
    },
}

/// A principal component basis: mean and directions of largest variance.
///
/// The entry of largest magnitude of a direction is positive, which fixes its sign. Directions without variance are zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    dim: usize,
    components: usize,
    /// `[dim]`
    mean: Vec<f32>,
    /// `[components, dim]`, rows of unit length, by falling variance.
    directions: Vec<f32>,
    /// `[components]`
    variances: Vec<f32>,
}

impl Pca {
    /// Fits `components` directions to `patches: [n, dim]`: the leading eigenvectors of the covariance, summed in f64. Of more than
    /// [`MAX_FIT_PATCHES`] patches, evenly spaced ones are used.
    ///
    /// # Errors
    /// A number of values that is not a positive multiple of `dim`, values that are not finite, or `components` outside 1..=dim.
    pub fn fit(patches: &[f32], dim: usize, components: usize) -> Result<Self, PcaError> {
        check_shape(patches, dim)?;
        if components == 0 || components > dim {
            return Err(PcaError::Components { dim, got: components });
        }
        if let Some(index) = patches.iter().position(|value| !value.is_finite()) {
            return Err(PcaError::NotFinite { patch: index / dim, value: patches[index].to_string() });
        }
        let (mean, centred) = centre(patches, dim);
        let samples = centred.ncols();
        let covariance = (&centred * centred.transpose()) / (samples.max(2) - 1) as f64;
        let (variances, vectors) = largest_eigenpairs(&covariance, components);
        let negligible = variances[0] * NEGLIGIBLE_VARIANCE;
        let mut directions = Vec::with_capacity(components * dim);
        for (variance, vector) in variances.iter().zip(vectors.column_iter()) {
            let sign = if *variance > negligible { vector[vector.iamax()].signum() } else { 0.0 };
            directions.extend(vector.iter().map(|value| (value * sign) as f32));
        }
        let mean = mean.iter().map(|value| *value as f32).collect();
        let variances = variances.iter().map(|variance| variance.max(0.0) as f32).collect();
        Ok(Self { dim, components, mean, directions, variances })
    }

    /// Width of a patch feature.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of directions.
    pub fn components(&self) -> usize {
        self.components
    }

    /// `[dim]`
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// `[components, dim]`, rows of unit length, by falling variance; rows without variance are zero.
    pub fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// `[components]`, variance along each direction, divided by `n - 1`.
    pub fn variances(&self) -> &[f32] {
        &self.variances
    }

    /// Writes the coordinates of `patches: [n, dim]` into `out: [n, components]`, replacing its content.
    ///
    /// # Errors
    /// A number of values that is not a positive multiple of `dim`.
    pub fn project_into(&self, patches: &[f32], out: &mut Vec<f32>) -> Result<(), PcaError> {
        check_shape(patches, self.dim)?;
        out.clear();
        for patch in patches.chunks_exact(self.dim) {
            for direction in self.directions.chunks_exact(self.dim) {
                out.push(centred_dot(patch, &self.mean, direction));
            }
        }
        Ok(())
    }
}

fn check_shape(patches: &[f32], dim: usize) -> Result<(), PcaError> {
    if dim == 0 || patches.is_empty() || !patches.len().is_multiple_of(dim) {
        return Err(PcaError::Shape { dim, got: patches.len() });
    }
    Ok(())
}

/// `sum((patch - mean) * direction)`, in lanes that the compiler turns into SIMD.
fn centred_dot(patch: &[f32], mean: &[f32], direction: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let whole = patch.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let (patch, mean, direction) =
            (&patch[start..start + LANES], &mean[start..start + LANES], &direction[start..start + LANES]);
        for lane in 0..LANES {
            sums[lane] += (patch[lane] - mean[lane]) * direction[lane];
        }
    }
    let rest = (whole..patch.len()).map(|index| (patch[index] - mean[index]) * direction[index]);
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// The mean `[dim]`, and the (evenly spaced) patches minus the mean as columns, `[dim, samples]`.
fn centre(patches: &[f32], dim: usize) -> (DVector<f64>, DMatrix<f64>) {
    let count = patches.len() / dim;
    let samples = count.min(MAX_FIT_PATCHES);
    let chosen = (0..samples).map(|sample| sample * count / samples);
    let values = chosen.flat_map(|patch| patches[patch * dim..][..dim].iter().map(|value| f64::from(*value)));
    let mut columns = DMatrix::from_iterator(dim, samples, values);
    let mean = columns.column_mean();
    columns.column_iter_mut().for_each(|mut column| column -= &mean);
    (mean, columns)
}

/// The `wanted` largest eigenvalues of a positive semidefinite matrix in descending order, and their vectors as columns.
///
/// Subspace iteration with Rayleigh-Ritz (Saad, Numerical Methods for Large Eigenvalue Problems, section 5.3.2) from a
/// fixed start, which is ten times faster than the full decomposition for a few leading pairs. If it does not converge, the full
/// decomposition is computed.
fn largest_eigenpairs(matrix: &DMatrix<f64>, wanted: usize) -> (Vec<f64>, DMatrix<f64>) {
    let dim = matrix.nrows();
    let width = wanted + EXTRA_DIRECTIONS;
    if 4 * width < dim {
        let mut basis = fixed_start(dim, width).qr().q();
        for _ in 0..MAX_ROUNDS {
            let image = matrix * &basis;
            let small = basis.tr_mul(&image);
            let (values, vectors) = sorted_eigenpairs(small);
            let residual = (&image * &vectors).columns(0, wanted)
                - (&basis * &vectors).columns(0, wanted)
                    * DMatrix::from_diagonal(&DVector::from_row_slice(&values[..wanted]));
            if residual.column_iter().all(|column| column.norm() <= TOLERANCE * values[0]) {
                return (values[..wanted].to_vec(), (&basis * vectors).columns(0, wanted).into_owned());
            }
            basis = (matrix * image).qr().q();
        }
    }
    let (values, vectors) = sorted_eigenpairs(matrix.clone());
    (values[..wanted].to_vec(), vectors.columns(0, wanted).into_owned())
}

/// All eigenvalues in descending order, and their vectors as columns.
fn sorted_eigenpairs(matrix: DMatrix<f64>) -> (Vec<f64>, DMatrix<f64>) {
    let eigen = matrix.symmetric_eigen();
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_by(|left, right| eigen.eigenvalues[*right].total_cmp(&eigen.eigenvalues[*left]));
    let values = order.iter().map(|index| eigen.eigenvalues[*index]).collect();
    (values, eigen.eigenvectors.select_columns(&order))
}

/// Values in -1..1 of a fixed linear congruential sequence (Knuth's MMIX constants).
fn fixed_start(rows: usize, columns: usize) -> DMatrix<f64> {
    let mut state = 1_u64;
    DMatrix::from_fn(rows, columns, |_, _| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    })
}
