use std::io::{self, Write};

use dinov2_core::{ImageView, PatchGrid};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::resample::Resampler;

/// Puts an image and a view of its features side by side. Keeps its buffers.
#[derive(Debug, Default)]
pub(super) struct Picture {
    resampler: Resampler,
    smooth: Vec<u8>,
    both: Vec<u8>,
}

impl Picture {
    /// `view`: [rows, cols, 3], enlarged smoothly to the size of `fitted`. Returns `[height, 2 * width, 3]` with its
    /// width and height.
    pub(super) fn beside(
        &mut self,
        fitted: ImageView<'_>,
        grid: PatchGrid,
        view: &[u8],
    ) -> (&[u8], u32, u32) {
        let side = |side: usize| u32::try_from(side).expect("side is within the limits");
        let (width, height) = (side(fitted.width_px()), side(fitted.height_px()));
        let size = (fitted.width_px(), fitted.height_px());
        self.resampler.resize(view, (grid.cols, grid.rows), size, &mut self.smooth);
        let row_bytes = fitted.width_px() * 3;
        self.both.clear();
        let rows = fitted.pixels().chunks_exact(row_bytes).zip(self.smooth.chunks_exact(row_bytes));
        for (image_row, view_row) in rows {
            self.both.extend_from_slice(image_row);
            self.both.extend_from_slice(view_row);
        }
        (&self.both, 2 * width, height)
    }
}

/// pixels: `[height, width, 3]`.
pub(super) fn write_png(file: &mut impl Write, pixels: &[u8], width: u32, height: u32) -> io::Result<()> {
    let encoder = PngEncoder::new(file);
    encoder.write_image(pixels, width, height, ExtendedColorType::Rgb8).map_err(|error| match error {
        image::ImageError::IoError(error) => error,
        other => io::Error::other(other),
    })
}
