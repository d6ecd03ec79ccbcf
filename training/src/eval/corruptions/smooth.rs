//! Gaussian smoothing.

/// Width, cut-off and edge rule of a Gaussian kernel.
pub(super) struct Smoothing {
    /// Deviations of the curve, down and across, in pixels.
    pub(super) sigma: [f64; 2],
    /// Deviations after which it ends.
    pub(super) reach: f64,
    /// The place of `position + shift` among `length` pixels.
    pub(super) edge: fn(position: usize, shift: isize, length: usize) -> usize,
}

impl Smoothing {
    /// values: `[height, width, channels]`.
    pub(super) fn of(&self, values: &[f64], (width, height): (usize, usize), channels: usize) -> Vec<f64> {
        let [down, across] = self.sigma.map(|sigma| self.weights(sigma));
        let row = width * channels;
        let mut lines = vec![0.0; values.len()];
        for (y, line) in lines.chunks_exact_mut(row).enumerate() {
            for (shift, weight) in &down {
                let source = &values[(self.edge)(y, *shift, height) * row..][..row];
                line.iter_mut().zip(source).for_each(|(sum, value)| *sum += weight * value);
            }
        }
        let mut out = vec![0.0; values.len()];
        for (shift, weight) in &across {
            let columns: Vec<usize> = (0..width).map(|x| (self.edge)(x, *shift, width) * channels).collect();
            for (line, source) in out.chunks_exact_mut(row).zip(lines.chunks_exact(row)) {
                for (pixel, column) in line.chunks_exact_mut(channels).zip(&columns) {
                    let from = &source[*column..][..channels];
                    pixel.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value);
                }
            }
        }
        out
    }

    /// Shifts and their weights, of sum 1.
    fn weights(&self, sigma: f64) -> Vec<(isize, f64)> {
        let most = (self.reach * sigma + 0.5) as isize;
        let curve = |shift: isize| (-0.5 / (sigma * sigma) * (shift * shift) as f64).exp();
        let sum: f64 = (-most..=most).map(curve).sum();
        (-most..=most).map(|shift| (shift, curve(shift) / sum)).collect()
    }
}

/// Beyond an edge, the last pixel.
pub(super) fn clamped(position: usize, shift: isize, length: usize) -> usize {
    (position as isize + shift).clamp(0, length as isize - 1) as usize
}

/// Beyond an edge, the picture in a mirror, the last pixel first.
pub(super) fn reflected(position: usize, shift: isize, length: usize) -> usize {
    let place = (position as isize + shift).rem_euclid(2 * length as isize) as usize;
    place.min(2 * length - 1 - place)
}
