use candle_core::{DType, Device, Tensor};
use dinov2_core::PatchGrid;
use dinov2_weights::Normalisation;

use super::DistilError;
use crate::data::{Batch, Pixels};
use crate::loss::{Targets, cosine};
use crate::statistics::{mean, quantile};
use crate::vit::{Images, Request, Tokens, Vit};

/// How much a student's features are those of its teacher, on images that it did not learn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Median cosine between patches.
    pub patch_median: f64,
    /// 5th percentile.
    pub patch_p5: f64,
    /// Mean cosine between CLS tokens.
    pub cls: f64,
}

/// Compares a student of the teacher's width with its targets, batch by batch. `None` where widths differ.
///
/// # Errors
/// Those of candle.
pub fn agreement(
    student: &Vit,
    batches: &[(Batch, Targets)],
    normalisation: Normalisation,
    device: &Device,
) -> Result<Option<Agreement>, DistilError> {
    let (mut patches, mut cls) = (Vec::new(), Vec::new());
    for (batch, targets) in batches {
        if targets.patches.dim(2)? != student.spec().dim {
            return Ok(None);
        }
        let tokens = tokens(student, batch, normalisation, device)?;
        let cosines = |got: &Tensor, want: &Tensor| -> candle_core::Result<Vec<f64>> {
            cosine(&got.to_dtype(DType::F32)?, want)?
                .affine(-1.0, 1.0)?
                .flatten_all()?
                .to_dtype(DType::F64)?
                .to_vec1()
        };
        let want = crate::loss::resize(&targets.patches, targets.grid, tokens.grid)?;
        patches.extend(cosines(&tokens.patches()?.contiguous()?, &want)?);
        cls.extend(cosines(&tokens.cls()?, &targets.cls)?);
    }
    if patches.is_empty() {
        return Ok(None);
    }
    patches.sort_by(f64::total_cmp);
    Ok(Some(Agreement {
        patch_median: quantile(&patches, 0.5),
        patch_p5: quantile(&patches, 0.05),
        cls: mean(&cls),
    }))
}

/// What a student makes of held-out images.
///
/// # Errors
/// Those of candle.
pub fn tokens(
    student: &Vit,
    batch: &Batch,
    normalisation: Normalisation,
    device: &Device,
) -> Result<Tokens, DistilError> {
    let images = images(student, &batch.student, normalisation, device)?;
    Ok(student.forward(&images, Request::default())?)
}

fn images(
    vit: &Vit,
    pixels: &Pixels,
    normalisation: Normalisation,
    device: &Device,
) -> candle_core::Result<Images> {
    let patch_size = vit.spec().patch_size;
    let side = pixels.side_px / patch_size;
    Images::new(&pixels.data, PatchGrid { rows: side, cols: side }, patch_size, normalisation, device)
}
