//! What the families of matrix products have in common.

use super::{CHANNELS, Constant, EPILOGUE, GEMM_TILE, narrow};
use crate::matrix::Matrix;
use crate::step::Stage;

/// What is applied to the outputs before they are written: `ACTIVATION` in `parts/epilogue.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Activation {
    None,
    Gelu,
    /// Needs gate and value in turn ([`crate::matrix::Layer::gated`]).
    SwiGlu,
}

/// Where the outputs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Output {
    /// Replace what was there, as the activations' number type.
    Store,
    /// Are added to an f32 matrix.
    Add,
}

impl Output {
    /// The epilogue and the output.
    pub(super) fn parts(self) -> [&'static str; 3] {
        let output = match self {
            Output::Store => include_str!("parts/output_store.wgsl"),
            Output::Add => include_str!("parts/output_add.wgsl"),
        };
        [EPILOGUE, CHANNELS, output]
    }
}

/// One application of a matrix: `output = activation(input x weights * scale + bias)`.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) stage: Stage,
    pub(crate) matrix: &'a Matrix,
    pub(crate) activation: Activation,
    pub(crate) output: Output,
    /// Row stride of the output.
    pub(crate) out_stride: usize,
    /// Row of the output that belongs to row 0 of the input.
    pub(crate) first_row: usize,
    /// Rows of the input; buffers have room for whole tiles.
    pub(crate) rows: usize,
}

/// How workgroups share out the output: `parts/gemm_tile.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tile {
    pub(crate) thread_cols: usize,
    pub(crate) thread_rows: usize,
    /// Columns of the input in a tile, in vectors: of four floats, or of sixteen integers.
    pub(crate) block: usize,
}

impl Tile {
    pub(super) const PART: &'static str = GEMM_TILE;

    pub(super) fn constants(self) -> [Constant; 2] {
        [("THREAD_COLS", self.thread_cols as f64), ("THREAD_ROWS", self.thread_rows as f64)]
    }

    pub(crate) fn height(self) -> usize {
        4 * self.thread_rows
    }

    pub(crate) fn width(self) -> usize {
        8 * self.thread_cols
    }

    pub(crate) fn threads(self) -> usize {
        self.thread_cols * self.thread_rows
    }

    /// Bytes of workgroup memory where a vector of the input and one of the weights take `vector_bytes`.
    pub(crate) fn bytes(self, vector_bytes: usize) -> usize {
        (self.height() + self.width()) * self.block * vector_bytes
    }
}

impl Product<'_> {
    /// Constants of [`Output::parts`].
    pub(super) fn constants(&self) -> Vec<Constant> {
        vec![
            ("ACTIVATION", f64::from(self.activation as u32)),
            ("OUT4", (self.out_stride / 4) as f64),
            ("FIRST_ROW", self.first_row as f64),
            ("N4", (self.matrix.n / 4) as f64),
        ]
    }

    /// Workgroups for tiles of this size.
    pub(super) fn workgroups(&self, height: usize, width: usize) -> [u32; 3] {
        assert!(self.matrix.n.is_multiple_of(width), "{} channels in tiles of {width}", self.matrix.n);
        [narrow(self.matrix.n / width), narrow(self.rows.div_ceil(height)), 1]
    }
}
