//! Linear centred kernel alignment, from sums over patches.

use nalgebra::{DMatrix, DMatrixView, DVector};

/// Linear centred kernel alignment (arXiv 1905.00414): how alike two sets of features of the same patches are, whatever their widths
/// and up to rotation and scale. 1 for features that are rotations of each other; 0 for unrelated ones.
///
/// `|cov(x, y)|^2 / (|cov(x, x)| * |cov(y, y)|)`, Frobenius norms, from sums over patches.
#[derive(Clone, Debug)]
pub struct LinearCka {
    /// `[dim]` each, taken from every feature: near the means, so that no large sums are subtracted later.
    origins: Option<[Vec<f32>; 2]>,
    patches: usize,
    sums: [DVector<f64>; 2],
    /// Products of x with x, x with y, y with y.
    products: [DMatrix<f64>; 3],
}

impl LinearCka {
    /// For features of these widths, without patches.
    pub fn new(left: usize, right: usize) -> Self {
        Self {
            origins: None,
            patches: 0,
            sums: [DVector::zeros(left), DVector::zeros(right)],
            products: [DMatrix::zeros(left, left), DMatrix::zeros(left, right), DMatrix::zeros(right, right)],
        }
    }

    /// Adds patches. `left: [n, left dim]`, `right: [n, right dim]`.
    ///
    /// # Panics
    /// If both are not of as many patches.
    pub fn add(&mut self, left: &[f32], right: &[f32]) {
        let sides = [left, right];
        let dims = [self.sums[0].len(), self.sums[1].len()];
        let patches = left.len() / dims[0];
        assert_eq!(right.len(), patches * dims[1], "features of as many patches");
        let view = |side: usize| DMatrixView::from_slice(sides[side], dims[side], patches);
        let origins = self
            .origins
            .get_or_insert_with(|| [0, 1].map(|side| view(side).column_mean().as_slice().to_vec()));
        let centred = [0, 1].map(|side| {
            let mut columns = view(side).clone_owned();
            for mut column in columns.column_iter_mut() {
                column.iter_mut().zip(&origins[side]).for_each(|(value, origin)| *value -= origin);
            }
            columns
        });
        for (sum, columns) in self.sums.iter_mut().zip(&centred) {
            for column in columns.column_iter() {
                sum.iter_mut().zip(column.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
            }
        }
        for (product, (from, to)) in self.products.iter_mut().zip([(0, 0), (0, 1), (1, 1)]) {
            let block = &centred[from] * centred[to].transpose();
            product.zip_apply(&block, |sum, value| *sum += f64::from(value));
        }
        self.patches += patches;
    }

    /// The alignment of all patches so far; NaN without patches.
    pub fn value(&self) -> f64 {
        let count = self.patches as f64;
        let squared = |product: &DMatrix<f64>, from: usize, to: usize| {
            let centred = product - &self.sums[from] * self.sums[to].transpose() / count;
            centred.norm_squared()
        };
        let [own, both, other] = &self.products;
        squared(both, 0, 1) / (squared(own, 0, 0) * squared(other, 1, 1)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_as_numpy_computes_it() {
        // x = ((arange(24) * 7) % 11).reshape(8, 3), y = ((arange(16) * 5) % 13).reshape(8, 2), float64, less their means:
        // norm(x.T @ y)**2 / (norm(x.T @ x) * norm(y.T @ y)).
        let left: Vec<f32> = (0..24).map(|index| (index * 7 % 11) as f32).collect();
        let right: Vec<f32> = (0..16).map(|index| (index * 5 % 13) as f32).collect();
        for patches_each in [8, 3, 1] {
            let mut cka = LinearCka::new(3, 2);
            for (left, right) in left.chunks(3 * patches_each).zip(right.chunks(2 * patches_each)) {
                cka.add(left, right);
            }
            assert!((cka.value() - 0.17724634222365343).abs() < 1e-6, "{}", cka.value());
        }
    }

    #[test]
    fn a_rotation_is_the_same_and_nothing_is_unknown() {
        let left: Vec<f32> = (0..40).map(|index| ((index * 17) % 23) as f32).collect();
        let rotated: Vec<f32> = left
            .chunks_exact(2)
            .flat_map(|pair| [0.6 * pair[0] - 0.8 * pair[1], 0.8 * pair[0] + 0.6 * pair[1]])
            .collect();
        let mut cka = LinearCka::new(2, 2);
        cka.add(&left, &rotated);
        assert!((cka.value() - 1.0).abs() < 1e-6, "{}", cka.value());
        assert!(LinearCka::new(2, 1).value().is_nan());
    }
}
