//! Renders views from images.

use dinov2_io::Resampler;

use super::colour::to_grey;
use super::{CropBox, View};
use crate::image::Image;

/// Renders views. Keeps its buffers, so each thread has its own.
#[derive(Debug, Default)]
pub struct Renderer {
    resampler: Resampler,
    cropped: Vec<u8>,
}

impl Renderer {
    /// The view of `image` as `[side_px, side_px, 3]`.
    ///
    /// # Panics
    /// If the view was drawn for an image of another size, or `side_px` is zero.
    pub fn render(&mut self, view: &View, image: &Image, side_px: usize) -> Vec<u8> {
        assert!(side_px > 0, "render: expected a positive side");
        let crop = view.crop;
        let row_bytes = image.width_px * 3;
        self.cropped.clear();
        for row in image.pixels.chunks_exact(row_bytes).skip(crop.top_px).take(crop.height_px) {
            self.cropped.extend_from_slice(&row[crop.left_px * 3..][..crop.width_px * 3]);
        }
        let mut out = Vec::new();
        let from = (crop.width_px, crop.height_px);
        self.resampler.resize(&self.cropped, from, (side_px, side_px), &mut out);
        let pixels = out.as_chunks_mut::<3>().0;
        if view.flip {
            pixels.chunks_exact_mut(side_px).for_each(<[_]>::reverse);
        }
        view.colour.iter().for_each(|step| step.apply(pixels));
        if view.grey {
            to_grey(pixels);
        }
        out
    }
}

/// The centred square of an image, `[side_px, side_px, 3]`, for measurements.
///
/// # Panics
/// If `side_px` is zero.
pub fn centre_square(image: &Image, side_px: usize) -> Vec<u8> {
    let side = image.width_px.min(image.height_px);
    let (left_px, top_px) = ((image.width_px - side) / 2, (image.height_px - side) / 2);
    let crop = CropBox { left_px, top_px, width_px: side, height_px: side };
    let view = View { crop, flip: false, colour: Vec::new(), grey: false };
    Renderer::default().render(&view, image, side_px)
}

/// `own_share * own + (1 - own_share) * other`, rounded; both `[n]`.
pub(crate) fn mix(own: &[u8], other: &[u8], own_share: f32, out: &mut [u8]) {
    for ((own, other), out) in own.iter().zip(other).zip(out) {
        let mixed = own_share * f32::from(*own) + (1.0 - own_share) * f32::from(*other);
        *out = mixed.round() as u8;
    }
}
