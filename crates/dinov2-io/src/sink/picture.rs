use std::borrow::Cow;
use std::io::{self, Write};

use dinov2_core::{HeadOutput, ImageView, PatchGrid, PixelRect};

use super::safetensors::Facts;
use crate::resample::Resampler;

/// Keyword of the text chunk with the facts.
const KEYWORD: &str = "dinov2-edge features";

/// Puts an image and what heads made of it side by side. Keeps its buffers.
#[derive(Debug, Default)]
pub(super) struct Picture {
    resampler: Resampler,
    panel: Vec<u8>,
    row_of_panels: Vec<u8>,
}

impl Picture {
    /// The image, and beside it every output that can be shown, enlarged to its size: `[height, panels * width, 3]` with its width and
    /// height. Boxes are drawn into the image. `None` if no output can be shown.
    pub(super) fn beside(
        &mut self,
        fitted: ImageView<'_>,
        outputs: &[(&str, &HeadOutput)],
    ) -> Option<(&[u8], u32, u32)> {
        let (width, height) = (fitted.width_px(), fitted.height_px());
        let mut image = fitted.pixels().to_vec();
        let mut panels = vec![];
        let mut has_boxes = false;
        for (_, output) in outputs {
            if let HeadOutput::Boxes(boxes) = output {
                boxes.iter().for_each(|found| draw_box(&mut image, (width, height), found.rect));
                has_boxes = true;
            } else if let Some((rgb, grid)) = rgb_of(output) {
                // Classes have no colours between them.
                if matches!(output, HeadOutput::Mask { .. }) {
                    nearest(&rgb, grid, (width, height), &mut self.panel);
                } else {
                    self.resampler.resize(&rgb, (grid.cols, grid.rows), (width, height), &mut self.panel);
                }
                panels.push(self.panel.clone());
            }
        }
        if panels.is_empty() && !has_boxes {
            return None;
        }
        panels.insert(0, image);
        self.row_of_panels.clear();
        for y in 0..height {
            let row = y * width * 3..(y + 1) * width * 3;
            panels.iter().for_each(|panel| self.row_of_panels.extend_from_slice(&panel[row.clone()]));
        }
        let side = |side: usize| u32::try_from(side).expect("side is within the limits");
        Some((&self.row_of_panels, side(panels.len() * width), side(height)))
    }
}

/// The colours of an output, `[rows, cols, 3]`: of a map black to white from its least to its greatest value, of a mask one colour per class.
/// `None` for what is no grid.
pub(super) fn rgb_of(output: &HeadOutput) -> Option<(Cow<'_, [u8]>, PatchGrid)> {
    match output {
        HeadOutput::Colours { grid, rgb } => Some((rgb.into(), *grid)),
        HeadOutput::Map { grid, values } => {
            let finite = || values.iter().copied().filter(|value| value.is_finite());
            let (low, high) =
                (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
            let grey = |value: &f32| {
                let part = if high > low { (value - low) / (high - low) } else { 0.5 };
                [(part.clamp(0.0, 1.0) * 255.0).round() as u8; 3]
            };
            Some((values.iter().flat_map(grey).collect(), *grid))
        }
        HeadOutput::Mask { grid, classes } => {
            Some((classes.iter().flat_map(|class| class_colour(*class)).collect(), *grid))
        }
        HeadOutput::Boxes(_) | HeadOutput::Vector(_) | HeadOutput::Score(_) => None,
    }
}

/// The colour map of PASCAL VOC: bits of the class, spread over the channels from the highest bit on.
fn class_colour(class: u8) -> [u8; 3] {
    let mut rgb = [0; 3];
    for step in 0..3 {
        for (channel, value) in rgb.iter_mut().enumerate() {
            // The third step has two bits left.
            let bit = u16::from(class) >> (3 * step + channel) & 1;
            *value |= (bit as u8) << (7 - step);
        }
    }
    rgb
}

fn nearest(rgb: &[u8], grid: PatchGrid, (width, height): (usize, usize), out: &mut Vec<u8>) {
    out.clear();
    for y in 0..height {
        for x in 0..width {
            let cell = y * grid.rows / height * grid.cols + x * grid.cols / width;
            out.extend_from_slice(&rgb[3 * cell..][..3]);
        }
    }
}

/// Draws the outline of a box, green, one pixel wide, as far as it is inside.
fn draw_box(image: &mut [u8], (width, height): (usize, usize), rect: PixelRect) {
    let inside = |value: f64, side: usize| (value.max(0.0) as usize).min(side.saturating_sub(1));
    let (left, right) = (inside(rect.left_px, width), inside(rect.left_px + rect.width_px - 1.0, width));
    let (top, bottom) = (inside(rect.top_px, height), inside(rect.top_px + rect.height_px - 1.0, height));
    let mut paint = |x: usize, y: usize| image[3 * (y * width + x)..][..3].copy_from_slice(&[0, 255, 0]);
    (left..=right).for_each(|x| [top, bottom].into_iter().for_each(|y| paint(x, y)));
    (top..=bottom).for_each(|y| [left, right].into_iter().for_each(|x| paint(x, y)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_the_colours_of_pascal_voc() {
        // From the development kit's VOClabelcolormap.
        for (class, colour) in
            [(0, [0, 0, 0]), (1, [128, 0, 0]), (3, [128, 128, 0]), (8, [64, 0, 0]), (15, [192, 128, 128])]
        {
            assert_eq!(class_colour(class), colour, "{class}");
        }
    }
}
