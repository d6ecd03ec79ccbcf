//! Patch embedding straight from u8 pixels: each patch becomes one row of centred pixel values, and the convolution
//! (stride = kernel, no padding) is a linear layer over these rows.
//!
//! ImageNet's mean and standard deviation are folded into weight and bias when a model is loaded, which is exact in real
//! arithmetic; pixels are centred by an integer first ([`PIXEL_CENTRE`]).

#[cfg(test)]
mod scalar;

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
    use crate::Epilogue;
    use crate::gemm_f32::PackedLinear;
    use crate::test_util::{numbers, relative_l2};
    use crate::{Isa, simd::isas_under_test};
    use alloc::vec;
    use alloc::vec::Vec;
    use dinov2_weights::{fold_normalisation, interleave_channels};

    const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    const STD: [f32; 3] = [0.229, 0.224, 0.225];

    fn embed(isa: Isa, image: ImageView<'_>, patch_size: usize, weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let grid = image.grid(patch_size).unwrap();
        let (mut weight, mut bias) = (weight.to_vec(), bias.to_vec());
        fold_normalisation(&mut weight, &mut bias, MEAN, STD);
        let patch_len = patch_size * patch_size * 3;
        let layer = PackedLinear::pack(isa, &interleave_channels(&weight, patch_size), &bias, patch_len);
        let mut rows = vec![0.0; grid.len() * patch_len];
        gather_patches(&Pool::single(), image, grid, patch_size, &mut rows);
        let mut out = vec![0.0; grid.len() * bias.len()];
        layer.apply(isa, &Pool::single(), Epilogue::Store, &rows, &mut out);
        out
    }

    #[test]
    fn equals_the_convolution_of_the_normalised_image() {
        for isa in isas_under_test() {
            for (patch_size, rows, cols, dim) in [(1, 3, 5, 4), (2, 1, 1, 3), (14, 3, 2, 20), (16, 2, 4, 8)] {
                let (width_px, height_px) = (cols * patch_size, rows * patch_size);
                let noise = numbers(5, width_px * height_px * 3);
                let pixels: Vec<u8> = noise.iter().map(|x| (x * 128.0 + 128.0) as u8).collect();
                let image = ImageView::new(&pixels, width_px, height_px).unwrap();
                let (weight, bias) = (numbers(6, dim * 3 * patch_size * patch_size), numbers(7, dim));
                let want = scalar::patch_embed(image, patch_size, &weight, &bias, MEAN, STD);
                let error = relative_l2(&embed(isa, image, patch_size, &weight, &bias), &want);
                assert!(error < 1e-6, "{} patch {patch_size}: {error}", isa.name());
            }
        }
    }
}
