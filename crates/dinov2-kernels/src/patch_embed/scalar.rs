//! The definition: normalise, then convolve with stride = kernel; double precision.

use alloc::vec::Vec;
use dinov2_core::ImageView;

/// Returns `[patches, dim]`.
pub(crate) fn patch_embed(
    image: ImageView<'_>,
    patch_size: usize,
    weight: &[f32],
    bias: &[f32],
    mean: [f32; 3],
    std: [f32; 3],
) -> Vec<f32> {
    let grid = image.grid(patch_size).unwrap();
    let filter_len = 3 * patch_size * patch_size;
    let mut out = Vec::new();
    for (row, col) in (0..grid.rows).flat_map(|row| (0..grid.cols).map(move |col| (row, col))) {
        for (filter, &bias) in weight.chunks_exact(filter_len).zip(bias) {
            let mut sum = f64::from(bias);
            for (at, &value) in filter.iter().enumerate() {
                let (channel, y, x) =
                    (at / (patch_size * patch_size), at / patch_size % patch_size, at % patch_size);
                let pixel = (row * patch_size + y) * image.width_px() + col * patch_size + x;
                let level = f64::from(image.pixels()[pixel * 3 + channel]) / 255.0;
                sum += (level - f64::from(mean[channel])) / f64::from(std[channel]) * f64::from(value);
            }
            out.push(sum as f32);
        }
    }
    out
}
