//! Rounding of a weight matrix to int8 so that its *outputs* change least, given what its inputs are like.
//!
//! [`Smoothing`] moves range from activations to weights (Xiao et al. 2023, SmoothQuant, eq. 4): input channel `j` is
//! divided by `s_j = max|x_j|^α / max|w_j|^(1-α)`, which is folded into the LayerNorm before it, and the weight's column
//! multiplied. [`Feedback`] rounds a row from the input with the most energy to the one with the least, and lets the
//! inputs that are still unrounded make up for each error (Frantar et al. 2023, GPTQ, with the order of `act_order`).

use nalgebra::{Cholesky, DMatrix};

use crate::Int8Rows;

/// Added to the diagonal of a Gram matrix, relative to its mean (GPTQ's own 1 %).
const DAMPING: f64 = 0.01;

/// Scales that are tried for a row, relative to the one that clips nothing.
const CLIPS: [f32; 7] = [1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75];

/// Factors by which input channels are divided, `[k]`, of geometric mean 1.
#[derive(Clone, Debug)]
pub struct Smoothing {
    factors: Vec<f32>,
}

impl Smoothing {
    /// Factors for inputs whose largest magnitudes are `inputs: [k]` and a weight `[n, k]`. `alpha` 0 would move all
    /// range to the inputs, 1 all to the weight.
    pub fn new(inputs: &[f32], weight: &[f32], alpha: f32) -> Self {
        let k = inputs.len();
        let mut columns = vec![0.0f32; k];
        for row in weight.chunks_exact(k) {
            columns.iter_mut().zip(row).for_each(|(most, w)| *most = most.max(w.abs()));
        }
        // A channel that is silent or unread leaves the ratio undefined; it stays as it is.
        let factor = |(&x, &w): (&f32, &f32)| {
            if x > 0.0 && w > 0.0 { x.powf(alpha) / w.powf(1.0 - alpha) } else { 1.0 }
        };
        let factors: Vec<f32> = inputs.iter().zip(&columns).map(factor).collect();
        let mean_log = factors.iter().map(|f| f64::from(f.ln())).sum::<f64>() / k as f64;
        let mean = mean_log.exp() as f32;
        Self { factors: factors.iter().map(|factor| (factor / mean).clamp(1e-3, 1e3)).collect() }
    }

    /// Divides a LayerNorm's γ or β, `[k]`.
    pub fn divide(&self, norm: &mut [f32]) {
        norm.iter_mut().zip(&self.factors).for_each(|(value, factor)| *value /= factor);
    }

    /// Multiplies the columns of a weight `[n, k]`.
    pub fn multiply_columns(&self, weight: &mut [f32]) {
        for row in weight.chunks_exact_mut(self.factors.len()) {
            row.iter_mut().zip(&self.factors).for_each(|(value, factor)| *value *= factor);
        }
    }

    /// The Gram matrix `[k, k]` of inputs that were divided.
    pub fn divide_gram(&self, gram: &mut [f32]) {
        for (row, f) in gram.chunks_exact_mut(self.factors.len()).zip(&self.factors) {
            row.iter_mut().zip(&self.factors).for_each(|(value, factor)| *value /= f * factor);
        }
    }
}

/// Scale per row of `weight: [n, k]` for integers up to `limit`: of a few clippings, the one with the least error when
/// rounded, input channels weighed by `energy: [k]` (the Gram matrix's diagonal).
pub fn scales(weight: &[f32], energy: &[f32], limit: u8) -> Vec<f32> {
    let scale = |row: &[f32]| {
        let largest = row.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        let widest = largest / f32::from(limit);
        if widest < f32::MIN_POSITIVE {
            return 0.0;
        }
        let error = |scale: f32| -> f64 {
            let error = |(&w, &energy): (&f32, &f32)| {
                let rounded = (w / scale).round().clamp(-f32::from(limit), f32::from(limit)) * scale;
                f64::from(energy) * f64::from(w - rounded).powi(2)
            };
            row.iter().zip(energy).map(error).sum()
        };
        let candidates = CLIPS.iter().map(|clip| widest * clip).map(|scale| (error(scale), scale));
        candidates.min_by(|x, y| x.0.total_cmp(&y.0)).map_or(widest, |(_, scale)| scale)
    };
    weight.chunks_exact(energy.len()).map(scale).collect()
}

/// Rounds `weight: [n, k]` to nearest with these scales.
pub fn round_to_nearest(weight: &[f32], scale: Vec<f32>, limit: u8) -> Int8Rows {
    let k = weight.len() / scale.len();
    let rows = weight.chunks_exact(k).zip(&scale);
    let values = rows.flat_map(|(row, &scale)| row.iter().map(move |&w| round(w, scale, limit))).collect();
    Int8Rows { values, scale }
}

fn round(weight: f32, scale: f32, limit: u8) -> i8 {
    let limit = f32::from(limit);
    if scale == 0.0 { 0 } else { (weight / scale).round().clamp(-limit, limit) as i8 }
}

/// What the rounding of one weight costs the others, from the Gram matrix of the inputs.
pub struct Feedback {
    /// Input channels in the order of rounding.
    order: Vec<u32>,
    /// `[k, k]`, upper triangular in that order: the Cholesky factor `U` of the inverse Gram matrix `Uᵀ U`.
    factor: Vec<f32>,
}

impl Feedback {
    /// From `gram: [k, k]`, the sum of `x xᵀ` over inputs `x`. `None` where it is no such matrix (not finite).
    pub fn new(gram: &[f32], k: usize) -> Option<Self> {
        assert_eq!(gram.len(), k * k, "Feedback::new: gram [k, k]");
        let energy = |channel: usize| f64::from(gram[channel * k + channel]);
        let damping = DAMPING * (0..k).map(energy).sum::<f64>() / k as f64;
        if !(damping.is_finite() && damping > 0.0) {
            return None;
        }
        let mut order: Vec<u32> = (0..k as u32).collect();
        order.sort_by(|&x, &y| energy(y as usize).total_cmp(&energy(x as usize)));
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
        Some(Self { order, factor })
    }

    /// Rounds one row `[k]` into `out`.
    pub fn round_row(&self, row: &[f32], scale: f32, limit: u8, out: &mut [i8]) {
        let k = row.len();
        let mut rest: Vec<f32> = self.order.iter().map(|&channel| row[channel as usize]).collect();
        for at in 0..k {
            let value = round(rest[at], scale, limit);
            out[self.order[at] as usize] = value;
            let factors = &self.factor[at * k + at..][..k - at];
            let error = (rest[at] - f32::from(value) * scale) / factors[0];
            rest[at..].iter_mut().zip(factors).for_each(|(rest, factor)| *rest -= error * factor);
        }
    }
}

/// `tr(ΔW G ΔWᵀ) / tr(W G Wᵀ)` with the Gram matrix `gram: [k, k]`, its square root: how far the outputs of the rounded
/// matrix are from those of `weight: [n, k]`, relative. Of at most 64 rows, evenly spread.
pub fn output_error(weight: &[f32], rounded: &Int8Rows, gram: &[f32]) -> f64 {
    const MOST_ROWS: usize = 64;
    let n = rounded.scale.len();
    let k = weight.len() / n;
    let energy = |row: &[f32]| -> f64 {
        let product = |(gram, x): (&[f32], &f32)| {
            f64::from(*x) * gram.iter().zip(row).map(|(g, x)| f64::from(*g) * f64::from(*x)).sum::<f64>()
        };
        gram.chunks_exact(k).zip(row).map(product).sum()
    };
    let (mut lost, mut whole) = (0.0, 0.0);
    for row in (0..n).step_by(n.div_ceil(MOST_ROWS)) {
        let exact = &weight[row * k..][..k];
        let integers = &rounded.values[row * k..][..k];
        let difference: Vec<f32> =
            exact.iter().zip(integers).map(|(w, &q)| w - f32::from(q) * rounded.scale[row]).collect();
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

    /// Squared distance of the outputs, computed from the inputs themselves.
    fn distance(inputs: &[f32], weight: &[f32], rounded: &Int8Rows, k: usize) -> f64 {
        let mut sum = 0.0;
        for (row, scale) in rounded.scale.iter().enumerate() {
            for x in inputs.chunks_exact(k) {
                let exact: f64 = x.iter().zip(&weight[row * k..]).map(|(x, w)| f64::from(x * w)).sum();
                let values = x.iter().zip(&rounded.values[row * k..]);
                let got: f64 = values.map(|(x, &q)| f64::from(*x) * f64::from(f32::from(q) * scale)).sum();
                sum += (exact - got).powi(2);
            }
        }
        sum
    }

    #[test]
    fn feedback_halves_the_error_of_the_outputs_at_least() {
        let (n, k, limit) = (12, 40, 7);
        let (inputs, weight) = (inputs(200, k), numbers(3, n * k));
        let gram = gram(&inputs, k);
        let energy: Vec<f32> = (0..k).map(|at| gram[at * k + at]).collect();
        let scale = scales(&weight, &energy, limit);
        let nearest = round_to_nearest(&weight, scale.clone(), limit);
        let feedback = Feedback::new(&gram, k).unwrap();
        let mut fed = Int8Rows { values: vec![0; n * k], scale };
        for (row, values) in fed.values.chunks_exact_mut(k).enumerate() {
            feedback.round_row(&weight[row * k..][..k], fed.scale[row], limit, values);
        }
        assert!(fed.values.iter().all(|value| value.unsigned_abs() <= limit));
        let (plain, better) = (distance(&inputs, &weight, &nearest, k), distance(&inputs, &weight, &fed, k));
        assert!(better < 0.5 * plain, "{better} {plain}");
        let whole: f64 = distance(&inputs, &weight, &Int8Rows { values: vec![0; n * k], ..fed.clone() }, k);
        let ratio = output_error(&weight, &fed, &gram) / (better / whole).sqrt();
        assert!((ratio - 1.0).abs() < 1e-3, "{ratio}");
    }

    #[test]
    fn uncorrelated_inputs_are_rounded_to_nearest() {
        let (k, limit) = (9, 64);
        let mut gram = vec![0.0; k * k];
        (0..k).for_each(|at| gram[at * k + at] = 1.0 + at as f32);
        let row = numbers(5, k);
        let mut out = vec![0; k];
        Feedback::new(&gram, k).unwrap().round_row(&row, 1.0 / 64.0, limit, &mut out);
        assert_eq!(out, round_to_nearest(&row, vec![1.0 / 64.0], limit).values);
        assert!(Feedback::new(&vec![f32::NAN; k * k], k).is_none());
        assert!(Feedback::new(&vec![0.0; k * k], k).is_none());
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
