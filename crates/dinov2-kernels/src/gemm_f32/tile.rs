//! The micro-kernel: a tile of up to `TILE_ROWS` rows by two vectors of columns, kept in registers.

use crate::simd::{MAX_TILE_ROWS, Simd};

/// Code for a number of rows that is known when it is compiled, so that accumulators become registers.
pub(crate) trait Rows {
    /// The body for `ROWS` rows.
    fn run<S: Simd, const ROWS: usize>(self, simd: S);
}

/// Calls the instance for `rows`, 1 to `S::TILE_ROWS`.
#[inline(always)]
pub(crate) fn for_rows<S: Simd, R: Rows>(simd: S, rows: usize, body: R) {
    const { assert!(S::TILE_ROWS <= MAX_TILE_ROWS) };
    // The comparison with TILE_ROWS is a constant: instances that never run are not compiled.
    macro_rules! instances {
        ($($rows:literal)*) => {
            match rows {
                $($rows if $rows <= S::TILE_ROWS => body.run::<S, $rows>(simd),)*
                _ => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    instances!(1 2 3 4 5 6 7 8 9 10 11 12)
}

/// `left · right`, where `left` is `ROWS` rows of `k` values, `left_stride` apart, and `right: [k, 2 * LANES]`.
///
/// # Safety
/// `left` is valid for reading `(ROWS - 1) * left_stride + k` f32, `right` for `k * 2 * LANES`.
#[inline(always)]
#[expect(unsafe_code, reason = "the micro-kernel works on raw pointers")]
pub(crate) unsafe fn product<S: Simd, const ROWS: usize>(
    simd: S,
    left: *const f32,
    left_stride: usize,
    right: *const f32,
    k: usize,
) -> [[S::V; 2]; ROWS] {
    let mut sums = [[simd.splat(0.0); 2]; ROWS];
    for step in 0..k {
        // SAFETY: `step < k`, `row < ROWS`; the caller vouches for both operands.
        unsafe {
            let right = right.add(step * 2 * S::LANES);
            let (first, second) = (simd.load(right), simd.load(right.add(S::LANES)));
            for (row, sum) in sums.iter_mut().enumerate() {
                let value = simd.splat(*left.add(row * left_stride + step));
                sum[0] = simd.mul_add(value, first, sum[0]);
                sum[1] = simd.mul_add(value, second, sum[1]);
            }
        }
    }
    sums
}
