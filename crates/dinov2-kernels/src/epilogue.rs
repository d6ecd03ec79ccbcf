//! What GEMM kernels do with a finished tile of sums, shared by all precisions.

use crate::activation;
use crate::disjoint::Disjoint;
use crate::simd::{MAX_LANES, Simd};

/// What happens to `input · weightᵀ + bias` on its way to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Stored as it is.
    Store,
    /// `gelu(x)`, exact form.
    Gelu,
    /// Added to what `out` holds.
    Add,
    /// `silu(a) * b`, where `a` is the first and `b` the second half of the output channels. Needs
    /// [`crate::gemm_f32::PackedLinear::pack_gated`].
    SwiGlu,
}

/// The output matrix of a GEMM, written by many tasks, each its own tiles.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    /// `[rows, cols]`.
    pub(crate) out: &'a Disjoint<'a, f32>,
    pub(crate) cols: usize,
    pub(crate) epilogue: Epilogue,
}

impl Output<'_> {
    /// Finishes one row of a panel's tile: two vectors of sums, bias included.
    #[inline(always)]
    pub(crate) fn store_row<S: Simd>(&self, simd: S, row: usize, panel: usize, sum: [S::V; 2]) {
        let column = panel * 2 * S::LANES;
        match self.epilogue {
            Epilogue::Store => self.store(simd, row, column, sum),
            Epilogue::Gelu => {
                self.store(
                    simd,
                    row,
                    column,
                    [activation::gelu(simd, sum[0]), activation::gelu(simd, sum[1])],
                );
            }
            Epilogue::Add => {
                let old = [self.load(simd, row, column), self.load(simd, row, column + S::LANES)];
                self.store(simd, row, column, [simd.add(old[0], sum[0]), simd.add(old[1], sum[1])]);
            }
            Epilogue::SwiGlu => {
                let value = simd.mul(activation::silu(simd, sum[0]), sum[1]);
                self.store_vector(simd, row, panel * S::LANES, value);
            }
        }
    }

    #[inline(always)]
    fn store<S: Simd>(&self, simd: S, row: usize, column: usize, values: [S::V; 2]) {
        self.store_vector(simd, row, column, values[0]);
        self.store_vector(simd, row, column + S::LANES, values[1]);
    }

    /// Stores as much of the vector as lies within the row.
    #[inline(always)]
    #[expect(unsafe_code, reason = "vector store")]
    fn store_vector<S: Simd>(&self, simd: S, row: usize, column: usize, values: S::V) {
        let cols = self.cols;
        if column + S::LANES <= cols {
            // SAFETY: `range` checked the bounds; this task alone writes these rows and columns.
            unsafe { simd.store(self.out.range(row * cols + column, S::LANES), values) };
        } else if column < cols {
            let mut lanes = [0.0f32; MAX_LANES];
            // SAFETY: MAX_LANES is at least LANES.
            unsafe { simd.store(lanes.as_mut_ptr(), values) };
            // SAFETY: this task alone writes these rows and columns.
            let tail = unsafe { self.out.slice(row * cols + column, cols - column) };
            tail.copy_from_slice(&lanes[..cols - column]);
        }
    }

    /// Loads as much of the vector as lies within the row; zeros beyond.
    #[inline(always)]
    #[expect(unsafe_code, reason = "vector load")]
    fn load<S: Simd>(&self, simd: S, row: usize, column: usize) -> S::V {
        let cols = self.cols;
        if column + S::LANES <= cols {
            // SAFETY: `range` checked the bounds; this task alone writes these rows and columns.
            return unsafe { simd.load(self.out.range(row * cols + column, S::LANES)) };
        }
        let mut lanes = [0.0f32; MAX_LANES];
        if column < cols {
            // SAFETY: this task alone writes these rows and columns.
            let tail = unsafe { self.out.slice(row * cols + column, cols - column) };
            lanes[..cols - column].copy_from_slice(tail);
        }
        // SAFETY: MAX_LANES is at least LANES.
        unsafe { simd.load(lanes.as_ptr()) }
    }
}
