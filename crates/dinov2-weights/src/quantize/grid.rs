//! Grids of numbers to which weights are rounded.

use half::f16;

use crate::int4::LARGEST;

/// Scales that are tried for a row, relative to the one that clips nothing.
const CLIPS: [f32; 7] = [1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75];

/// Where the two ends of an int4 group are tried, relative to its extremes.
const GROUP_CLIPS: [f32; 6] = [1.0, 0.92, 0.84, 0.76, 0.68, 0.6];

/// The numbers `scale · (q - zero)` with an integer q of `least..=most`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    scale: f32,
    zero: i8,
    least: i8,
    most: i8,
}

impl Grid {
    /// Symmetric, q within `limit`. Scale 0 holds nothing but 0.
    ///
    /// # Panics
    /// When `limit` is beyond 127.
    pub fn symmetric(scale: f32, limit: u8) -> Self {
        let most = i8::try_from(limit).expect("a limit of at most 127");
        Self { scale, zero: 0, least: -most, most }
    }

    /// The int4 grid of a group of weights, q and zero in 0..=15: of a few clippings at either end, the one with the least
    /// squared rounding error, weighted by `costs`. The scale is an f16, as in a file.
    pub fn int4(group: &[f32], costs: &[f32]) -> Self {
        let ends = group.iter().fold((0.0f32, 0.0f32), |(low, high), &w| (low.min(w), high.max(w)));
        let mut best = (f64::INFINITY, Self::between(ends.0, ends.1));
        for low in GROUP_CLIPS {
            for high in GROUP_CLIPS {
                let grid = Self::between(ends.0 * low, ends.1 * high);
                let error = grid.error(group, costs);
                if error < best.0 {
                    best = (error, grid);
                }
            }
        }
        best.1
    }

    /// int4 from `low` (at most 0) to `high` (at least 0).
    fn between(low: f32, high: f32) -> Self {
        let steps = f32::from(LARGEST);
        let scale = f16::from_f32((high - low) / steps).min(f16::MAX).to_f32();
        let zero = if scale == 0.0 { 0.0 } else { (-low / scale).round().clamp(0.0, steps) };
        Self { scale, zero: zero as i8, least: 0, most: LARGEST as i8 }
    }

    /// Squared rounding error, weighted by `costs`.
    fn error(self, group: &[f32], costs: &[f32]) -> f64 {
        let error = |(&w, &cost): (&f32, &f32)| cost * (w - self.value(self.round(w))).powi(2);
        group.iter().zip(costs).map(error).sum::<f32>().into()
    }

    /// The integer of the number nearest to a weight, ties away from zero.
    pub fn round(self, weight: f32) -> i8 {
        if self.scale == 0.0 {
            return self.zero;
        }
        let (least, most) = (f32::from(self.least), f32::from(self.most));
        ((weight / self.scale).round() + f32::from(self.zero)).clamp(least, most) as i8
    }

    /// The number of an integer.
    pub fn value(self, integer: i8) -> f32 {
        self.scale * (f32::from(integer) - f32::from(self.zero))
    }

    /// The scale as an f16; exact for int4.
    pub(super) fn scale_f16(self) -> f16 {
        f16::from_f32(self.scale)
    }

    pub(super) fn zero(self) -> i8 {
        self.zero
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Of all 16 numbers of a grid, the nearest.
    fn nearest(weight: f32, scale: f32, zero: f32) -> f32 {
        let numbers = (0..16).map(|q| scale * (q as f32 - zero));
        numbers.min_by(|x, y| (weight - x).abs().total_cmp(&(weight - y).abs())).unwrap()
    }

    #[test]
    fn int4_rounds_to_the_nearest_of_sixteen_numbers() {
        let mut state = 9u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        for (factor, offset) in
            [(1.0, 0.0), (0.01, 0.004), (0.1, 0.2), (1.0, -3.0), (1e-6, 0.0), (300.0, 5.0)]
        {
            let group: Vec<f32> = (0..32).map(|_| number() * factor + offset).collect();
            let costs: Vec<f32> = (0..32).map(|_| 1.5 + number()).collect();
            let grid = Grid::int4(&group, &costs);
            let (scale, zero) = (grid.scale_f16().to_f32(), f32::from(grid.zero()));
            assert!((0.0..=15.0).contains(&zero));
            let mut lost = 0.0;
            for (&weight, &cost) in group.iter().zip(&costs) {
                let got = grid.value(grid.round(weight));
                let want = nearest(weight, scale, zero);
                assert!(
                    (weight - got).abs() <= (weight - want).abs() * (1.0 + 1e-5),
                    "{weight} {got} {want}"
                );
                lost += cost * (weight - got).powi(2);
            }
            // No plain choice of scale and zero point is better: from the least to the largest weight, and 0.
            let low = group.iter().copied().fold(0.0, f32::min);
            let high = group.iter().copied().fold(0.0, f32::max);
            let plain = f16::from_f32((high - low) / 15.0).to_f32();
            let zero = (-low / plain).round().clamp(0.0, 15.0);
            let of_plain = |(&w, &cost): (&f32, &f32)| cost * (w - nearest(w, plain, zero)).powi(2);
            let plain_lost: f32 = group.iter().zip(&costs).map(of_plain).sum();
            assert!(lost <= plain_lost * 1.0001, "{lost} {plain_lost}");
        }
    }

    #[test]
    fn extreme_groups_have_finite_grids() {
        for group in
            [[0.0; 32], [f32::MAX; 32], [f32::MIN; 32], [1e-30; 32], [f32::INFINITY; 32], [f32::NAN; 32]]
        {
            let grid = Grid::int4(&group, &[1.0; 32]);
            assert!(grid.scale_f16().is_finite() && (0..=15).contains(&grid.zero()), "{grid:?}");
            assert!((0..=15).contains(&grid.round(group[0])), "{grid:?}");
        }
        assert_eq!(Grid::int4(&[0.0; 32], &[1.0; 32]).value(0), 0.0);
    }
}
