//! Rounds a weight matrix to int8 or int4 so that its *outputs* change least for given input statistics.
//!
//! [`Smoothing`] moves range from activations to weights (Xiao et al. 2023, SmoothQuant, eq. 4): input channel `j` is
//! divided by `s_j = max|x_j|^α / max|w_j|^(1-α)`, which is folded into the preceding LayerNorm, and the weight's column is
//! multiplied by it. [`Feedback`] rounds a row in the order of input energy, largest first, and corrects the weights that
//! are not rounded yet for each error (Frantar et al. 2023, GPTQ, with `act_order`). In int4 this order applies to groups,
//! and to the inputs within a group; a group's scale and zero point are chosen just before it is rounded, from its
//! corrected weights.
//!
//! ```
//! use dinov2_weights::quantize::{output_error, round_to_nearest, scales};
//!
//! let weight = [0.5, -1.0, 0.25, 0.75]; // [n, k] = [2, 2]
//! let gram = [2.0, 0.5, 0.5, 1.0]; // [k, k], the sum of x xᵀ over inputs x
//! let scale = scales(&weight, &[gram[0], gram[3]], 127);
//! let rows = round_to_nearest(&weight, scale, 127);
//! assert!(output_error(&weight, &rows.to_f32(), &gram) < 0.01);
//! ```

mod feedback;
mod grid;
mod smoothing;

pub use feedback::Feedback;
pub use grid::{Grid, scales};
pub use smoothing::Smoothing;

use crate::{Int4Groups, Int8Rows};

/// Rounds `weight: [n, k]` to nearest with these scales, `[n]`.
pub fn round_to_nearest(weight: &[f32], scale: Vec<f32>, limit: u8) -> Int8Rows {
    let k = weight.len() / scale.len();
    let rows = weight.chunks_exact(k).zip(&scale).map(|(row, &scale)| (row, Grid::symmetric(scale, limit)));
    let values = rows.flat_map(|(row, grid)| row.iter().map(move |&w| grid.round(w))).collect();
    Int8Rows { values, scale }
}

/// Rounds `weight: [n, k]` to nearest in int4, input channels weighed by `energy: [k]` (the Gram matrix's diagonal).
pub fn round_to_nearest_int4(weight: &[f32], energy: &[f32], group: usize) -> Int4Groups {
    let mut groups = Int4Groups { group, values: Vec::new(), scale: Vec::new(), zero: Vec::new() };
    for (at, weights) in weight.chunks_exact(group).enumerate() {
        let grid = Grid::int4(weights, &energy[at * group % energy.len()..][..group]);
        groups.values.extend(weights.iter().map(|&weight| grid.round(weight) as u8));
        groups.scale.push(grid.scale_f16());
        groups.zero.push(grid.zero() as u8);
    }
    groups
}

/// `tr(ΔW G ΔWᵀ) / tr(W G Wᵀ)` with the Gram matrix `gram: [k, k]`, its square root: how far the outputs of `rounded:
/// [n, k]` are from those of `weight: [n, k]`, relative. Of at most 64 rows, evenly spread.
pub fn output_error(weight: &[f32], rounded: &[f32], gram: &[f32]) -> f64 {
    const MOST_ROWS: usize = 64;
    let k = gram.len().isqrt();
    let n = weight.len() / k;
    let energy = |row: &[f32]| -> f64 {
        let product = |(gram, x): (&[f32], &f32)| {
            f64::from(*x) * gram.iter().zip(row).map(|(g, x)| f64::from(*g) * f64::from(*x)).sum::<f64>()
        };
        gram.chunks_exact(k).zip(row).map(product).sum()
    };
    let (mut lost, mut whole) = (0.0, 0.0);
    for row in (0..n).step_by(n.div_ceil(MOST_ROWS)) {
        let exact = &weight[row * k..][..k];
        let difference: Vec<f32> = exact.iter().zip(&rounded[row * k..]).map(|(w, q)| w - q).collect();
        lost += energy(&difference);
        whole += energy(exact);
    }
    if whole > 0.0 { (lost / whole).max(0.0).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform in -1..1 (Knuth's MMIX generator).
    fn numbers(seed: u64, len: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// Inputs `[count, k]` of which neighbours are alike, as in an image's features.
    fn inputs(count: usize, k: usize) -> Vec<f32> {
        let noise = numbers(7, count * (k + 4));
        let rows = noise.chunks_exact(k + 4);
        rows.flat_map(|row| (0..k).map(|at| row[at..at + 5].iter().sum::<f32>()).collect::<Vec<_>>())
            .collect()
    }

    fn gram(inputs: &[f32], k: usize) -> Vec<f32> {
        let mut gram = vec![0.0; k * k];
        for x in inputs.chunks_exact(k) {
            for (row, xi) in gram.chunks_exact_mut(k).zip(x) {
                row.iter_mut().zip(x).for_each(|(value, xj)| *value += xi * xj);
            }
        }
        gram
    }

    fn energy(gram: &[f32], k: usize) -> Vec<f32> {
        (0..k).map(|at| gram[at * k + at]).collect()
    }

    /// Squared distance of the outputs, computed from the inputs themselves.
    fn distance(inputs: &[f32], weight: &[f32], rounded: &[f32], k: usize) -> f64 {
        let mut sum = 0.0;
        for (exact, got) in weight.chunks_exact(k).zip(rounded.chunks_exact(k)) {
            let output = |row: &[f32], x: &[f32]| -> f64 {
                x.iter().zip(row).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
            };
            sum += inputs.chunks_exact(k).map(|x| (output(exact, x) - output(got, x)).powi(2)).sum::<f64>();
        }
        sum
    }

    #[test]
    fn feedback_halves_the_error_of_the_outputs_at_least() {
        let (n, k, limit) = (12, 40, 7);
        let (inputs, weight) = (inputs(200, k), numbers(3, n * k));
        let gram = gram(&inputs, k);
        let scale = scales(&weight, &energy(&gram, k), limit);
        let nearest = round_to_nearest(&weight, scale.clone(), limit);
        let fed = Feedback::new(&gram, k, k).unwrap().int8(&weight, scale, limit);
        assert!(fed.values.iter().all(|value| value.unsigned_abs() <= limit));
        let (plain, better) =
            (distance(&inputs, &weight, &nearest.to_f32(), k), distance(&inputs, &weight, &fed.to_f32(), k));
        assert!(better < 0.5 * plain, "{better} {plain}");
        let whole = distance(&inputs, &weight, &vec![0.0; n * k], k);
        let ratio = output_error(&weight, &fed.to_f32(), &gram) / (better / whole).sqrt();
        assert!((ratio - 1.0).abs() < 1e-3, "{ratio}");
    }

    #[test]
    fn feedback_in_groups_halves_the_error_of_the_outputs_at_least() {
        let (n, k) = (12, 128);
        let inputs = inputs(400, k);
        // Groups of unlike energy, so that they are not rounded in the order of the row.
        let loud: Vec<f32> = inputs.iter().enumerate().map(|(at, x)| x * (1 + at % k / 32) as f32).collect();
        let (gram, weight) = (gram(&loud, k), numbers(3, n * k));
        for group in [32, 64] {
            let nearest = round_to_nearest_int4(&weight, &energy(&gram, k), group);
            let fed = Feedback::new(&gram, k, group).unwrap().int4(&weight);
            assert!(fed.values.iter().chain(&fed.zero).all(|&value| value <= 15));
            let plain = distance(&loud, &weight, &nearest.to_f32(), k);
            let better = distance(&loud, &weight, &fed.to_f32(), k);
            assert!(better < 0.5 * plain, "{group}: {better} {plain}");
        }
    }

    #[test]
    fn uncorrelated_inputs_are_rounded_to_nearest() {
        let (k, limit) = (64, 64);
        let mut gram = vec![0.0; k * k];
        (0..k).for_each(|at| gram[at * k + at] = 1.0 + at as f32);
        let row = numbers(5, k);
        let feedback = |gram: &[f32], group| Feedback::new(gram, k, group);
        let fed = feedback(&gram, k).unwrap().int8(&row, vec![1.0 / 64.0], limit);
        assert_eq!(fed, round_to_nearest(&row, vec![1.0 / 64.0], limit));
        // Damping adds the same to every cost; without it they are the energies.
        let damped: Vec<f32> = energy(&gram, k).iter().map(|energy| energy + 0.01 * 32.5).collect();
        assert_eq!(feedback(&gram, 32).unwrap().int4(&row), round_to_nearest_int4(&row, &damped, 32));
        assert!(feedback(&vec![f32::NAN; k * k], k).is_none());
        assert!(feedback(&vec![0.0; k * k], k).is_none());
    }

    #[test]
    fn smoothing_leaves_the_product_as_it_is() {
        let (n, k) = (5, 8);
        let (weight, x) = (numbers(1, n * k), numbers(2, k));
        let most: Vec<f32> = x.iter().map(|x| x.abs() * 3.0).collect();
        let smoothing = Smoothing::new(&most, &weight, 0.5);
        let (mut divided, mut multiplied) = (x.clone(), weight.clone());
        smoothing.divide(&mut divided);
        smoothing.multiply_columns(&mut multiplied);
        for (before, after) in weight.chunks_exact(k).zip(multiplied.chunks_exact(k)) {
            let product = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
            assert!((product(before, &x) - product(after, &divided)).abs() < 1e-5);
        }
    }
}
