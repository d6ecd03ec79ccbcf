//! Rows of a matrix: picked out, put back and compared.

use std::cmp::Ordering;

/// Copies rows `wanted` of `from: [n, width]` below each other into `to: [m, width]`.
pub(crate) fn gather(from: &[f32], wanted: &[usize], width: usize, to: &mut [f32]) {
    for (&row, to) in wanted.iter().zip(to.chunks_exact_mut(width)) {
        to.copy_from_slice(&from[row * width..][..width]);
    }
}

/// As [`gather`], to the first rows of the same matrix. `wanted` ascends.
pub(crate) fn gather_in_place(rows: &mut [f32], wanted: &[usize], width: usize) {
    for (to, &row) in wanted.iter().enumerate() {
        rows.copy_within(row * width..(row + 1) * width, to * width);
    }
}

/// Copies `from: [m, width]` to rows `wanted` of `to: [n, width]`.
pub(crate) fn scatter(from: &[f32], wanted: &[usize], width: usize, to: &mut [f32]) {
    for (&row, from) in wanted.iter().zip(from.chunks_exact(width)) {
        to[row * width..][..width].copy_from_slice(from);
    }
}

/// Whether `|row - kept| > threshold * |kept|` in L2; with threshold 0, whether any bit differs. True where anything is
/// no number.
pub(crate) fn relative_distance_exceeds(threshold: f32, row: &[f32], kept: &[f32]) -> bool {
    if threshold == 0.0 {
        return !same_bits(row, kept);
    }
    const LANES: usize = 8;
    let (mut distance, mut length) = ([0.0f32; LANES], [0.0f32; LANES]);
    for (row, kept) in row.chunks(LANES).zip(kept.chunks(LANES)) {
        for lane in 0..row.len() {
            distance[lane] += (row[lane] - kept[lane]) * (row[lane] - kept[lane]);
            length[lane] += kept[lane] * kept[lane];
        }
    }
    let (distance, length): (f32, f32) = (distance.iter().sum(), length.iter().sum());
    distance.partial_cmp(&(threshold * threshold * length)).is_none_or(Ordering::is_gt)
}

/// Whether two rows are the same, bit for bit.
pub(crate) fn same_bits(row: &[f32], kept: &[f32]) -> bool {
    row.iter().zip(kept).all(|(x, y)| x.to_bits() == y.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_relative_and_strict() {
        let kept: Vec<f32> = (0..21).map(|at| if at == 20 { 4.0 } else { 0.0 }).collect();
        let mut row = kept.clone();
        row[3] = 1.0;
        assert!(!relative_distance_exceeds(0.25, &row, &kept));
        assert!(relative_distance_exceeds(0.2499, &row, &kept));
        assert!(relative_distance_exceeds(0.0, &row, &kept));
        assert!(!relative_distance_exceeds(0.0, &kept, &kept));
        row[3] = -0.0;
        assert!(relative_distance_exceeds(0.0, &row, &kept));
        row[3] = f32::NAN;
        assert!(relative_distance_exceeds(1e9, &row, &kept));
    }

    #[test]
    fn rows_come_back_to_where_they_were() {
        let from: Vec<f32> = (0..12).map(|at| at as f32).collect();
        let mut picked = [0.0; 6];
        gather(&from, &[3, 1], 3, &mut picked);
        assert_eq!(picked, [9.0, 10.0, 11.0, 3.0, 4.0, 5.0]);
        let mut to = [0.0; 12];
        scatter(&picked, &[3, 1], 3, &mut to);
        assert_eq!(to, [0.0, 0.0, 0.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0, 9.0, 10.0, 11.0]);
    }
}
