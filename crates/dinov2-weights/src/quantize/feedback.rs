//! Rounding with error feedback.

use half::f16;
use nalgebra::{Cholesky, DMatrix};

use super::Grid;
use crate::{Int4Groups, Int8Rows};

/// Added to the diagonal of a Gram matrix, relative to its mean (GPTQ's own 1 %).
const DAMPING: f64 = 0.01;

/// Error feedback factors, from the Gram matrix of the inputs.
pub struct Feedback {
    /// Size of a group: neighbouring weights of a row that share a grid and are rounded one after the other.
    group: usize,
    /// Input channels in the order of rounding.
    order: Vec<u32>,
    /// `[k, k]`, upper triangular in that order: the Cholesky factor `U` of the inverse Gram matrix `Uᵀ U`.
    factor: Vec<f32>,
    /// `[k]`, in that order: the remaining cost of a squared error after feedback, `1 / U_jj²`.
    costs: Vec<f32>,
}

/// Chooses the grid of a group. Arguments: number of the group, its corrected weights, the cost of their squared errors.
type ChooseGrid<'a> = dyn FnMut(usize, &[f32], &[f32]) -> Grid + 'a;

impl Feedback {
    /// From `gram: [k, k]`, the sum of `x xᵀ` over inputs `x`. The group with the most energy is rounded first, and in
    /// it the input with the most. `None` if the matrix is not positive definite or not finite.
    ///
    /// # Panics
    /// When `k` is no whole number of groups.
    pub fn new(gram: &[f32], k: usize, group: usize) -> Option<Self> {
        assert_eq!(gram.len(), k * k, "Feedback::new: gram [k, k]");
        assert!(k.is_multiple_of(group), "Feedback::new: {k} inputs in groups of {group}");
        let energy: Vec<f64> = (0..k).map(|channel| f64::from(gram[channel * k + channel])).collect();
        let damping = DAMPING * energy.iter().sum::<f64>() / k as f64;
        if !(damping.is_finite() && damping > 0.0) {
            return None;
        }
        let order = order(&energy, group);
        // With the order reversed, the Gram matrix is L Lᵀ; reversed back, L becomes an upper triangular R with
        // R Rᵀ the Gram matrix, so that the inverse is Uᵀ U with U = R⁻¹.
        let reversed = |at: usize| order[k - 1 - at] as usize;
        let damped = DMatrix::from_fn(k, k, |row, column| {
            let value = f64::from(gram[reversed(row) * k + reversed(column)]);
            if row == column { value + damping } else { value }
        });
        let mut inverse = DMatrix::identity(k, k);
        if !Cholesky::new(damped)?.l_dirty().solve_lower_triangular_mut(&mut inverse) {
            return None;
        }
        let mut factor = vec![0.0; k * k];
        for row in 0..k {
            for column in row..k {
                factor[row * k + column] = inverse[(k - 1 - row, k - 1 - column)] as f32;
            }
        }
        let costs = factor.iter().step_by(k + 1).map(|diagonal| diagonal.powi(-2)).collect();
        Some(Self { group, order, factor, costs })
    }

    /// Rounds `weight: [n, k]` with these scales, `[n]`.
    pub fn int8(&self, weight: &[f32], scale: Vec<f32>, limit: u8) -> Int8Rows {
        let k = self.order.len();
        let mut values = vec![0; weight.len()];
        for ((row, out), &scale) in weight.chunks_exact(k).zip(values.chunks_exact_mut(k)).zip(&scale) {
            self.round_row(row, &mut |_, _, _| Grid::symmetric(scale, limit), out);
        }
        Int8Rows { values, scale }
    }

    /// Rounds `weight: [n, k]`, with scales and zero points from the corrected weights of each group.
    pub fn int4(&self, weight: &[f32]) -> Int4Groups {
        let k = self.order.len();
        let mut values = vec![0; weight.len()];
        let mut scale = vec![f16::ZERO; weight.len() / self.group];
        let mut zero = vec![0; weight.len() / self.group];
        let groups_of_row = k / self.group;
        for (index, (row, out)) in weight.chunks_exact(k).zip(values.chunks_exact_mut(k)).enumerate() {
            let choose = &mut |group: usize, weights: &[f32], costs: &[f32]| {
                let grid = Grid::int4(weights, costs);
                let at = index * groups_of_row + group;
                (scale[at], zero[at]) = (grid.scale_f16(), grid.zero() as u8);
                grid
            };
            self.round_row(row, choose, out);
        }
        let values = values.into_iter().map(|value| value as u8).collect();
        Int4Groups { group: self.group, values, scale, zero }
    }

    /// Rounds one row `[k]` into `out`.
    fn round_row(&self, row: &[f32], choose: &mut ChooseGrid<'_>, out: &mut [i8]) {
        let k = row.len();
        let mut rest: Vec<f32> = self.order.iter().map(|&channel| row[channel as usize]).collect();
        for start in (0..k).step_by(self.group) {
            let members = start..start + self.group;
            let group = self.order[start] as usize / self.group;
            let grid = choose(group, &rest[members.clone()], &self.costs[members.clone()]);
            for at in members {
                let value = grid.round(rest[at]);
                out[self.order[at] as usize] = value;
                let factors = &self.factor[at * k + at..][..k - at];
                let error = (rest[at] - grid.value(value)) / factors[0];
                rest[at..].iter_mut().zip(factors).for_each(|(rest, factor)| *rest -= error * factor);
            }
        }
    }
}

/// Channels with the most energy first, groups kept together.
fn order(energy: &[f64], group: usize) -> Vec<u32> {
    let mut groups: Vec<usize> = (0..energy.len() / group).collect();
    let total = |at: &usize| energy[at * group..][..group].iter().sum::<f64>();
    groups.sort_by(|x, y| total(y).total_cmp(&total(x)));
    let mut order = Vec::with_capacity(energy.len());
    for at in groups {
        let mut members: Vec<u32> = (at * group..(at + 1) * group).map(|channel| channel as u32).collect();
        members.sort_by(|&x, &y| energy[y as usize].total_cmp(&energy[x as usize]));
        order.extend(members);
    }
    order
}
