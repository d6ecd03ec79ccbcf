//! How matrices lie on the device: rows are padded with zeros so that kernels need no checks at the edges.

use dinov2_core::{MlpKind, PatchGrid, VitSpec};

/// Columns of every activation are a multiple of this: whole vectors, and whole tiles of the matrix products.
pub(crate) const COLUMN_ALIGN: usize = 32;
/// Output channels of every matrix are a multiple of this: the widest tile.
pub(crate) const CHANNEL_ALIGN: usize = 64;
/// Rows of every activation are a multiple of this: the highest tile.
pub(crate) const ROW_ALIGN: usize = 64;

/// Padded sizes of a model, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) dim: usize,
    /// Row stride of tokens.
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    /// Columns of a head among queries, keys, values and attention's output.
    pub(crate) head: usize,
    /// Row stride of queries, keys and values.
    pub(crate) qkv: usize,
    /// Row stride of attention's output.
    pub(crate) attended: usize,
    pub(crate) mlp: MlpKind,
    pub(crate) mlp_hidden: usize,
    /// Row stride inside the MLP.
    pub(crate) hidden: usize,
    pub(crate) patch_size: usize,
    /// Row stride of patch pixels.
    pub(crate) pixels: usize,
    pub(crate) prefix: usize,
}

impl Layout {
    pub(crate) fn new(spec: &VitSpec) -> Self {
        let head = spec.head_dim().next_multiple_of(4);
        let columns = |count: usize| count.next_multiple_of(COLUMN_ALIGN);
        Self {
            dim: spec.dim,
            tokens: columns(spec.dim),
            heads: spec.heads,
            head_dim: spec.head_dim(),
            head,
            qkv: columns(3 * spec.heads * head),
            attended: columns(spec.heads * head),
            mlp: spec.mlp,
            mlp_hidden: spec.mlp_hidden,
            hidden: columns(spec.mlp_hidden),
            patch_size: spec.patch_size,
            pixels: columns(3 * spec.patch_size * spec.patch_size),
            prefix: spec.prefix_tokens(),
        }
    }

    /// Rows of a matrix of tokens; a tile of the patch embedding may begin right behind the prefix.
    pub(crate) fn rows(&self, grid: PatchGrid) -> usize {
        (self.prefix + self.patch_rows(grid)).next_multiple_of(ROW_ALIGN)
    }

    /// Rows of the matrix of patch pixels.
    pub(crate) fn patch_rows(&self, grid: PatchGrid) -> usize {
        grid.len().next_multiple_of(ROW_ALIGN)
    }

    /// Column of the padded queries, keys and values (`parts` 3) or of attention's output (`parts` 1), for each column as
    /// the model has it.
    pub(crate) fn head_columns(&self, parts: usize) -> Vec<usize> {
        let heads = 0..parts * self.heads;
        heads.flat_map(|head| (0..self.head_dim).map(move |at| head * self.head + at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use dinov2_core::PositionConvention;

    use super::*;

    /// Two heads of 5 columns, 3 registers.
    fn spec() -> VitSpec {
        VitSpec {
            dim: 10,
            depth: 1,
            heads: 2,
            patch_size: 3,
            registers: 3,
            mlp: MlpKind::Gelu,
            mlp_hidden: 40,
            layer_scale: true,
            norm_eps: 1e-6,
            position_table: PatchGrid { rows: 2, cols: 2 },
            position_convention: PositionConvention::ExactSize,
        }
    }

    #[test]
    fn columns_are_padded() {
        let layout = Layout::new(&spec());
        assert_eq!((layout.tokens, layout.head, layout.qkv, layout.attended), (32, 8, 64, 32));
        assert_eq!((layout.hidden, layout.pixels, layout.prefix), (64, 32, 4));
    }

    #[test]
    fn heads_lie_apart_by_their_padded_width() {
        let layout = Layout::new(&spec());
        assert_eq!(layout.head_columns(1), [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]);
        let all = layout.head_columns(3);
        assert_eq!((all.len(), all[10], all[29]), (30, 16, 44));
    }

    #[test]
    fn rows_have_room_for_whole_tiles_behind_the_prefix() {
        let layout = Layout::new(&spec());
        let grid = |rows, cols| PatchGrid { rows, cols };
        assert_eq!((layout.patch_rows(grid(1, 1)), layout.rows(grid(1, 1))), (64, 128));
        assert_eq!((layout.patch_rows(grid(13, 5)), layout.rows(grid(13, 5))), (128, 192));
    }
}
