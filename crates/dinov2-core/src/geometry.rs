//! Positions of the patches of a grid in the source image.
//!
//! Coordinates are those of the source image, before resizing or cropping: pixel `(x, y)` covers `x..x + 1` and `y..y + 1`, so its
//! centre is at `(x + 0.5, y + 0.5)`. Edges of patches may lie between pixels.

use crate::PatchGrid;

/// The part of an image that the patch grid covers, in pixels of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crop {
    /// Columns left of it.
    pub left_px: usize,
    /// Rows above it.
    pub top_px: usize,
    /// Its width.
    pub width_px: usize,
    /// Its height.
    pub height_px: usize,
}

/// A patch of a grid, counted from the top left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatchIndex {
    /// Row, from 0.
    pub row: usize,
    /// Column, from 0.
    pub col: usize,
}

/// A point of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelPoint {
    /// From the left edge.
    pub x_px: f64,
    /// From the upper edge.
    pub y_px: f64,
}

/// A rectangle of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PixelRect {
    /// Left edge.
    pub left_px: f64,
    /// Upper edge.
    pub top_px: f64,
    /// Width.
    pub width_px: f64,
    /// Height.
    pub height_px: f64,
}

/// Positions of the patches of a grid in their source image. Resizing maps the edges of the crop linearly to the edges of the grid, as
/// `dinov2-io` and PIL do.
///
/// ```
/// use dinov2_core::{Crop, PatchGeometry, PatchGrid, PatchIndex, PixelPoint};
///
/// // A frame of 640x480, resized to 308x224 for patches of 14.
/// let crop = Crop { left_px: 0, top_px: 0, width_px: 640, height_px: 480 };
/// let geometry = PatchGeometry::new(PatchGrid { rows: 16, cols: 22 }, crop);
/// assert_eq!(geometry.centre(8, 11), PixelPoint { x_px: 11.5 * 640.0 / 22.0, y_px: 255.0 });
/// assert_eq!(geometry.patch_at(639.5, 0.5), Some(PatchIndex { row: 0, col: 21 }));
/// assert_eq!(geometry.patch_at(640.0, 0.5), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchGeometry {
    grid: PatchGrid,
    crop: Crop,
}

impl PixelRect {
    /// The centre.
    pub fn centre(self) -> PixelPoint {
        PixelPoint { x_px: self.left_px + self.width_px / 2.0, y_px: self.top_px + self.height_px / 2.0 }
    }
}

impl PatchGeometry {
    /// A grid over the part `crop` of an image.
    pub const fn new(grid: PatchGrid, crop: Crop) -> Self {
        Self { grid, crop }
    }

    /// The grid.
    pub const fn grid(&self) -> PatchGrid {
        self.grid
    }

    /// The part of the image that the grid covers.
    pub const fn crop(&self) -> Crop {
        self.crop
    }

    /// The part of the image that a patch covers.
    ///
    /// # Panics
    /// If the grid has no such patch.
    pub fn rect(&self, row: usize, col: usize) -> PixelRect {
        let Self { grid, crop } = self;
        assert!(
            row < grid.rows && col < grid.cols,
            "patch: expected within {grid}, got row {row}, column {col}"
        );
        let edge = |index: usize, side_px: usize, count: usize| index as f64 * side_px as f64 / count as f64;
        PixelRect {
            left_px: crop.left_px as f64 + edge(col, crop.width_px, grid.cols),
            top_px: crop.top_px as f64 + edge(row, crop.height_px, grid.rows),
            width_px: edge(1, crop.width_px, grid.cols),
            height_px: edge(1, crop.height_px, grid.rows),
        }
    }

    /// The centre of a patch.
    ///
    /// # Panics
    /// If the grid has no such patch.
    pub fn centre(&self, row: usize, col: usize) -> PixelPoint {
        self.rect(row, col).centre()
    }

    /// The patch that covers a point; `None` outside of the grid. A pixel's centre is half a pixel from its edges.
    pub fn patch_at(&self, x_px: f64, y_px: f64) -> Option<PatchIndex> {
        let Self { grid, crop } = self;
        let row = place(y_px - crop.top_px as f64, crop.height_px, grid.rows)?;
        let col = place(x_px - crop.left_px as f64, crop.width_px, grid.cols)?;
        Some(PatchIndex { row, col })
    }
}

/// Index of the part that a point falls into, of `count` equal parts of a side.
fn place(distance_px: f64, side_px: usize, count: usize) -> Option<usize> {
    // False for NaN, too.
    let inside = distance_px >= 0.0 && distance_px < side_px as f64;
    // Rounding may reach the far edge.
    (inside && count > 0).then(|| ((distance_px * count as f64 / side_px as f64) as usize).min(count - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_is_found_at_its_centre_and_covers_the_crop_with_the_others() {
        let crop = Crop { left_px: 5, top_px: 3, width_px: 451, height_px: 300 };
        let geometry = PatchGeometry::new(PatchGrid { rows: 8, cols: 12 }, crop);
        for row in 0..8 {
            for col in 0..12 {
                let (rect, centre) = (geometry.rect(row, col), geometry.centre(row, col));
                assert_eq!(geometry.patch_at(centre.x_px, centre.y_px), Some(PatchIndex { row, col }));
                let next = if col < 11 { geometry.rect(row, col + 1).left_px } else { 456.0 };
                assert!((rect.left_px + rect.width_px - next).abs() < 1e-9);
                let below = if row < 7 { geometry.rect(row + 1, col).top_px } else { 303.0 };
                assert!((rect.top_px + rect.height_px - below).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn outside_there_is_no_patch() {
        let crop = Crop { left_px: 5, top_px: 3, width_px: 28, height_px: 14 };
        let geometry = PatchGeometry::new(PatchGrid { rows: 1, cols: 2 }, crop);
        for (x_px, y_px) in
            [(4.9, 5.0), (33.0, 5.0), (10.0, 2.9), (10.0, 17.0), (f64::NAN, 5.0), (10.0, f64::INFINITY)]
        {
            assert_eq!(geometry.patch_at(x_px, y_px), None, "{x_px} {y_px}");
        }
        assert_eq!(geometry.patch_at(5.0, 3.0), Some(PatchIndex { row: 0, col: 0 }));
        assert_eq!(
            geometry.patch_at(33.0_f64.next_down(), 17.0_f64.next_down()),
            Some(PatchIndex { row: 0, col: 1 })
        );
        let nothing = PatchGeometry::new(PatchGrid { rows: 0, cols: 0 }, Crop::default());
        assert_eq!(nothing.patch_at(0.0, 0.0), None);
    }
}
