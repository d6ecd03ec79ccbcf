use std::io::{self, Write};

use dinov2_core::{ImageView, PatchGrid};

use super::safetensors::Facts;
use crate::resample::Resampler;

/// Keyword of the text chunk with the facts.
const KEYWORD: &str = "dinov2-edge features";

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

/// pixels: `[height, width, 3]`. Facts stand in an iTXt chunk before the pixels, as a JSON object.
pub(super) fn write_png(
    file: &mut impl Write,
    pixels: &[u8],
    width: u32,
    height: u32,
    facts: Option<&Facts>,
) -> io::Result<()> {
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    if let Some(facts) = facts {
        encoder.add_itxt_chunk(KEYWORD.into(), serde_json::to_string(facts)?)?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    Ok(writer.finish()?)
}
