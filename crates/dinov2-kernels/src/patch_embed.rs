//! Patch embedding straight from u8 pixels: each patch becomes one row of centred pixel values, and the convolution
//! (stride = kernel, no padding) is a linear layer over these rows.
//!
//! ImageNet's mean and standard deviation are folded into weight and bias when a model is loaded, which is exact in real
//! arithmetic; pixels are centred by an integer first ([`PIXEL_CENTRE`]).
//!
//! ```
//! use dinov2_core::{ImageView, PIXEL_CENTRE};
//! use dinov2_kernels::{Pool, patch_embed::gather_patches};
//!
//! // Two pixels, each a patch of side 1.
//! let image = ImageView::new(&[0, 1, 2, 253, 254, 255], 2, 1)?;
//! let mut rows = [0.0; 6];
//! gather_patches(&Pool::single(), image, image.grid(1)?, 1, &mut rows);
//! assert_eq!(rows[3], 253.0 - f32::from(PIXEL_CENTRE));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use dinov2_core::{ImageView, PIXEL_CENTRE, PatchGrid};

use crate::Pool;
use crate::disjoint::Disjoint;

/// Gathers the centred pixels of every patch: `rows_out: [rows * cols, patch * patch * 3]`, pixels interleaved.
///
/// # Panics
/// When `rows_out` does not fit the grid or the image does not.
pub fn gather_patches(
    pool: &Pool,
    image: ImageView<'_>,
    grid: PatchGrid,
    patch_size: usize,
    rows_out: &mut [f32],
) {
    let patch_len = patch_size * patch_size * 3;
    assert_eq!(image.width_px(), grid.cols * patch_size, "gather_patches: image width");
    assert_eq!(image.height_px(), grid.rows * patch_size, "gather_patches: image height");
    assert_eq!(
        rows_out.len(),
        grid.len() * patch_len,
        "gather_patches: rows_out [patches, patch * patch * 3]"
    );
    let line_len = image.width_px() * 3;
    let rows_out = Disjoint::new(rows_out);
    pool.run(grid.rows, &|row| {
        let len = grid.cols * patch_len;
        #[expect(unsafe_code, reason = "rows of patches are shared out among tasks")]
        // SAFETY: each task writes its own row of patches.
        let patches = unsafe { rows_out.slice(row * len, len) };
        let lines = image.pixels()[row * patch_size * line_len..].chunks_exact(line_len).take(patch_size);
        for (line, pixels) in lines.enumerate() {
            let segments = pixels.chunks_exact(patch_size * 3);
            for (patch, segment) in patches.chunks_exact_mut(patch_len).zip(segments) {
                for (value, &pixel) in patch[line * patch_size * 3..].iter_mut().zip(segment) {
                    *value = f32::from(i16::from(pixel) - i16::from(PIXEL_CENTRE));
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn a_row_has_the_pixels_of_its_patch() {
        for (patch_size, rows, cols) in [(1, 3, 5), (2, 1, 1), (14, 3, 2), (16, 2, 4)] {
            let (width_px, height_px) = (cols * patch_size, rows * patch_size);
            let pixels: Vec<u8> = (0..width_px * height_px * 3).map(|at| (at * 89 % 251) as u8).collect();
            let image = ImageView::new(&pixels, width_px, height_px).unwrap();
            let patch_len = patch_size * patch_size * 3;
            let mut got = vec![f32::NAN; rows * cols * patch_len];
            gather_patches(&Pool::single(), image, image.grid(patch_size).unwrap(), patch_size, &mut got);
            for (at, got) in got.into_iter().enumerate() {
                let (patch, within) = (at / patch_len, at % patch_len);
                let y = patch / cols * patch_size + within / 3 / patch_size;
                let x = patch % cols * patch_size + within / 3 % patch_size;
                let pixel = pixels[(y * width_px + x) * 3 + within % 3];
                assert_eq!(got, f32::from(pixel) - f32::from(PIXEL_CENTRE), "patch {patch_size}: value {at}");
            }
        }
    }
}
