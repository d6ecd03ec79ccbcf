//! Bilinear interpolation of patch maps to pixels.

use dinov2_core::PatchGrid;

/// Two neighbouring cells and the weight of the second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    pub(crate) first: usize,
    pub(crate) second: usize,
    pub(crate) share: f32,
}

impl Tap {
    /// The neighbours, of `cells`, of the centre of pixel `position` of `length`.
    pub(crate) fn at(position: usize, length: usize, cells: usize) -> Self {
        let centre = ((position as f64 + 0.5) * cells as f64 / length as f64 - 0.5).max(0.0);
        let first = (centre as usize).min(cells - 1);
        Self { first, second: (first + 1).min(cells - 1), share: (centre - first as f64) as f32 }
    }

    pub(crate) fn blend<'a>(&self, first: &[f32], second: &[f32], out: impl Iterator<Item = &'a mut f32>) {
        for ((out, first), second) in out.zip(first).zip(second) {
            *out = first + (second - first) * self.share;
        }
    }
}

/// A number of values that does not match the grid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("map: expected {channels} values for each of {grid} patches, got {got}")]
pub struct UpsampleError {
    /// Values per patch.
    pub channels: usize,
    /// Grid of the patches.
    pub grid: PatchGrid,
    /// Values given.
    pub got: usize,
}

/// Interpolates `map: [rows, cols, channels]` bilinearly to `out: [height_px, width_px, channels]`, replacing its content;
/// pixel centres, edges repeated (PyTorch's `align_corners=False`).
///
/// # Errors
/// A number of values that does not match the grid, or a grid without patches.
pub fn upsample(
    map: &[f32],
    grid: PatchGrid,
    channels: usize,
    (width_px, height_px): (usize, usize),
    out: &mut Vec<f32>,
) -> Result<(), UpsampleError> {
    if grid.is_empty() || channels == 0 || map.len() != grid.len() * channels {
        return Err(UpsampleError { channels, grid, got: map.len() });
    }
    let columns: Vec<Tap> = (0..width_px).map(|x| Tap::at(x, width_px, grid.cols)).collect();
    let row_values = grid.cols * channels;
    let mut line = vec![0.0; row_values];
    out.clear();
    out.resize(width_px * height_px * channels, 0.0);
    for (y, pixels) in out.chunks_exact_mut((width_px * channels).max(1)).enumerate() {
        let tap = Tap::at(y, height_px, grid.rows);
        let row = |index: usize| &map[index * row_values..][..row_values];
        tap.blend(row(tap.first), row(tap.second), line.iter_mut());
        for (pixel, column) in pixels.chunks_exact_mut(channels).zip(&columns) {
            let patch = |index: usize| &line[index * channels..][..channels];
            column.blend(patch(column.first), patch(column.second), pixel.iter_mut());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_as_torch_interpolates_them() {
        // torch.nn.functional.interpolate(torch.tensor([[[[0., 3., 1.], [8., 2., 5.]]]]), size=(3, 5), mode="bilinear").
        let grid = PatchGrid { rows: 2, cols: 3 };
        let mut out = Vec::new();
        upsample(&[0.0, 3.0, 1.0, 8.0, 2.0, 5.0], grid, 1, (5, 3), &mut out).unwrap();
        let expected = [0.0, 1.2, 3.0, 1.8, 1.0, 4.0, 3.4, 2.5, 2.8, 3.0, 8.0, 5.599999, 2.0, 3.8, 5.0];
        assert_eq!(out.len(), expected.len());
        assert!(out.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-5), "{out:?}");
        // Channels do not mix.
        let two: Vec<f32> =
            [0.0, 3.0, 1.0, 8.0, 2.0, 5.0].into_iter().flat_map(|value| [value, 1.0]).collect();
        let mut both = Vec::new();
        upsample(&two, grid, 2, (5, 3), &mut both).unwrap();
        assert!(both.chunks_exact(2).map(|pixel| pixel[0]).eq(out));
        assert!(both.chunks_exact(2).all(|pixel| pixel[1] == 1.0));
        assert!(upsample(&two, grid, 1, (5, 3), &mut both).is_err());
        assert!(upsample(&[], PatchGrid { rows: 0, cols: 3 }, 1, (5, 3), &mut both).is_err());
    }
}
