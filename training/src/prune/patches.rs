//! The patch embedding for patches of another size.

use candle_core::{Device, Tensor};
use dinov2_core::PatchGrid;
use nalgebra::DMatrix;

use super::PruneError;
use crate::loss::resize_matrix;

/// The patch embedding for another patch size: an enlarged patch has the same embedding as the patch itself (Beyer et
/// al. 2023, FlexiViT, arXiv 2212.08013, section 3.4). `weight: [dim, 3, from, from]`; returns `[dim, 3, to, to]`.
///
/// With `B` the matrix that resizes a patch, the result is `(Bᵀ)⁺ w`; for smaller patches it is the least-squares solution.
pub(super) fn resize(weight: &Tensor, to: usize) -> Result<Tensor, PruneError> {
    let (dim, colours, from, _) = weight.dims4()?;
    let square = |side| PatchGrid { rows: side, cols: side };
    let enlarge = resize_matrix(square(from), square(to))?;
    let enlarge =
        DMatrix::from_fn(to * to, from * from, |row, col| f64::from(enlarge[row * from * from + col]));
    let transposed = enlarge.transpose();
    let gram = if to >= from { &transposed * &enlarge } else { &enlarge * &transposed };
    let inverse = gram.try_inverse().ok_or_else(|| {
        PruneError::Shape(format!(
            "patch_size: expected patches that {from} pixels can be resized to, got {to}"
        ))
    })?;
    let map = if to >= from { &enlarge * inverse } else { inverse * &enlarge };
    let map: Vec<f32> = map.transpose().iter().map(|value| *value as f32).collect();
    let map = Tensor::from_vec(map, (to * to, from * from), &Device::Cpu)?;
    let filters = weight.reshape((dim * colours, from * from))?;
    Ok(filters.matmul(&map.t()?)?.reshape((dim, colours, to, to))?)
}
