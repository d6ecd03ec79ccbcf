//! Pictures of a frame: the camera image, the colours of its patches, the mean of both, and all three side by side.

use dinov2_core::{ImageView, PatchGrid};
use serde::Deserialize;

use crate::feed::ViewFrame;

/// The picture that a stream or snapshot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Picture {
    /// The image that the features were computed from.
    Camera,
    /// The colours of the patches, at the size of the image.
    Pca,
    /// The mean of the two.
    Overlay,
    /// Camera, colours and overlay, from left to right.
    All,
}

impl Picture {
    /// In the order of their discriminants.
    pub(crate) const ALL: [Self; 4] = [Self::Camera, Self::Pca, Self::Overlay, Self::All];
}

/// The picture as an image. `canvas` is the buffer for pictures that must be computed.
pub(crate) fn compose<'a>(frame: &'a ViewFrame, picture: Picture, canvas: &'a mut Vec<u8>) -> ImageView<'a> {
    let (width, height) = (frame.width_px, frame.height_px);
    let parts: &[Picture] = match picture {
        Picture::Camera => return view(&frame.pixels, width, height),
        Picture::All => &Picture::ALL[..3],
        Picture::Pca => &[Picture::Pca],
        Picture::Overlay => &[Picture::Overlay],
    };
    canvas.clear();
    for (y, row) in frame.pixels.chunks_exact(3 * width).enumerate() {
        for part in parts {
            match part {
                Picture::Pca => canvas.extend(colours_of_row(frame, y).flatten()),
                Picture::Overlay => {
                    let colours = colours_of_row(frame, y).flatten();
                    canvas.extend(row.iter().zip(colours).map(|(&pixel, colour)| pixel.midpoint(colour)));
                }
                Picture::Camera | Picture::All => canvas.extend_from_slice(row),
            }
        }
    }
    view(canvas, width * parts.len(), height)
}

fn view(pixels: &[u8], width_px: usize, height_px: usize) -> ImageView<'_> {
    ImageView::new(pixels, width_px, height_px).expect("pixels were made for this size")
}

/// The colours of the patches under a row of pixels.
fn colours_of_row(frame: &ViewFrame, y: usize) -> impl Iterator<Item = [u8; 3]> {
    let PatchGrid { rows, cols } = frame.grid;
    let row = &frame.colours[y * rows / frame.height_px * cols * 3..][..cols * 3];
    (0..frame.width_px).map(move |x| {
        let at = x * cols / frame.width_px * 3;
        [row[at], row[at + 1], row[at + 2]]
    })
}

/// Writes `image` into `out: [height, width, 3]`, reduced by the smallest integer factor that brings its sides to `max_side_px`.
/// Each pixel is the mean of a square; incomplete squares at the right and the bottom are cut off. Returns width and height.
pub(crate) fn reduce_into(image: ImageView<'_>, max_side_px: usize, out: &mut Vec<u8>) -> (usize, usize) {
    let (width, height) = (image.width_px(), image.height_px());
    let factor = width.max(height).div_ceil(max_side_px);
    out.clear();
    if factor <= 1 {
        out.extend_from_slice(image.pixels());
        return (width, height);
    }
    let (out_width, out_height) = ((width / factor).max(1), (height / factor).max(1));
    let (across, down) = (factor.min(width), factor.min(height));
    let mut sums = vec![0_u32; out_width * 3];
    let area = (across * down) as u32;
    for rows in image.pixels().chunks_exact(3 * width * down).take(out_height) {
        sums.fill(0);
        for row in rows.chunks_exact(3 * width) {
            for (sum, square) in sums.chunks_exact_mut(3).zip(row.chunks_exact(3 * across)) {
                for pixel in square.chunks_exact(3) {
                    sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u32::from(*value));
                }
            }
        }
        out.extend(sums.iter().map(|sum| ((sum + area / 2) / area) as u8));
    }
    (out_width, out_height)
}

/// A PNG file of an image.
pub(crate) fn png_of(image: ImageView<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, image.width_px() as u32, image.height_px() as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(image.pixels()));
    written.expect("writing into memory does not fail, and the pixels have the size that they state");
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(pixels: &[u8], width: usize, height: usize, max_side: usize) -> (Vec<u8>, (usize, usize)) {
        let mut out = vec![7; 5];
        let size = reduce_into(ImageView::new(pixels, width, height).unwrap(), max_side, &mut out);
        (out, size)
    }

    #[test]
    fn small_images_stay_and_large_ones_become_means() {
        let pixels: Vec<u8> = (0..5 * 4 * 3).collect();
        assert_eq!(reduced(&pixels, 5, 4, 5), (pixels.clone(), (5, 4)));
        // Factor 2: squares of pixels 0, 1, 5, 6 and so on; the fifth column is cut off.
        let (out, size) = reduced(&pixels, 5, 4, 3);
        assert_eq!(size, (2, 2));
        assert_eq!(out, [9, 10, 11, 15, 16, 17, 39, 40, 41, 45, 46, 47]);
    }

    #[test]
    fn narrow_images_keep_a_pixel() {
        let pixels: Vec<u8> = (0..9).flat_map(|value| [value * 10; 3]).collect();
        assert_eq!(reduced(&pixels, 1, 9, 3), (vec![10, 10, 10, 40, 40, 40, 70, 70, 70], (1, 3)));
        assert_eq!(reduced(&pixels, 9, 1, 3), (vec![10, 10, 10, 40, 40, 40, 70, 70, 70], (3, 1)));
    }
}
