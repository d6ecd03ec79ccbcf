//! Smoothing factors, which move range from activations to weights.

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
        // A channel whose inputs or weights are all zero has no ratio; it stays as it is.
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

    /// Turns a Gram matrix `[k, k]` into that of the divided inputs.
    pub fn divide_gram(&self, gram: &mut [f32]) {
        for (row, f) in gram.chunks_exact_mut(self.factors.len()).zip(&self.factors) {
            row.iter_mut().zip(&self.factors).for_each(|(value, factor)| *value /= f * factor);
        }
    }
}
