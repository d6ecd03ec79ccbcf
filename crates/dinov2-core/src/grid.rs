//! The grid of patches of an image.

use core::fmt;

use crate::PatchIndex;

/// Numbers of rows and columns of patches. Patches are numbered row by row from the top left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct PatchGrid {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
}

/// An image whose sides are not positive multiples of the patch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image size: expected positive multiples of {patch_size}, got {width_px}x{height_px}")]
pub struct GridError {
    /// Width of the image.
    pub width_px: usize,
    /// Height of the image.
    pub height_px: usize,
    /// Patch size of the model.
    pub patch_size: usize,
}

impl PatchGrid {
    /// The grid of an image of `width_px` x `height_px`.
    ///
    /// # Errors
    /// A side that is 0 or not a multiple of `patch_size`.
    pub fn of_image(width_px: usize, height_px: usize, patch_size: usize) -> Result<Self, GridError> {
        let fits = |side: usize| side > 0 && patch_size > 0 && side.is_multiple_of(patch_size);
        if fits(width_px) && fits(height_px) {
            Ok(Self { rows: height_px / patch_size, cols: width_px / patch_size })
        } else {
            Err(GridError { width_px, height_px, patch_size })
        }
    }

    /// Number of patches.
    pub const fn len(self) -> usize {
        self.rows * self.cols
    }

    /// Row and column of patch number `index`. For an index beyond the last patch, the row is beyond the last row.
    ///
    /// # Panics
    /// If the grid has no columns.
    pub const fn patch(self, index: usize) -> PatchIndex {
        PatchIndex { row: index / self.cols, col: index % self.cols }
    }

    /// True for a grid without patches.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for PatchGrid {
    /// `ROWSxCOLS`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.cols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_numbered_row_by_row() {
        let grid = PatchGrid { rows: 2, cols: 3 };
        assert_eq!(
            [0, 2, 3, 5].map(|index| grid.patch(index)).map(|patch| (patch.row, patch.col)),
            [(0, 0), (0, 2), (1, 0), (1, 2)]
        );
    }

    #[test]
    fn grid_needs_whole_patches() {
        assert_eq!(PatchGrid::of_image(28, 42, 14), Ok(PatchGrid { rows: 3, cols: 2 }));
        for (width_px, height_px) in [(0, 14), (14, 0), (15, 14), (14, 27)] {
            assert!(PatchGrid::of_image(width_px, height_px, 14).is_err(), "{width_px}x{height_px}");
        }
    }
}
