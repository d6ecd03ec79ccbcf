//! Agreement between student and teacher on held-out images.

use candle_core::{DType, Device, Tensor};
use dinov2_core::PatchGrid;
use dinov2_core::statistics::{quantile, sorted};
use dinov2_weights::Normalisation;

use super::DistillError;
use crate::data::{Batch, Pixels};
use crate::loss::{Objective, Targets, cosine};
use crate::statistics::mean;
use crate::vit::{Images, Parameters, Request, Tokens, Vit};

/// Agreement of student and teacher on held-out images: of the features themselves with the head `identity`, else of the heads'
/// outputs and the standardised targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Side of the images.
    pub side_px: usize,
    /// Median cosine between patches.
    pub patch_median: f64,
    /// 5th percentile.
    pub patch_p5: f64,
    /// Mean cosine between CLS tokens.
    pub cls: f64,
}

/// Compares a student with its targets; one result per side, in the order of the batches. `heads`: tensors of
/// the loss's heads.
///
/// # Errors
/// Those of candle.
pub fn agreements(
    student: &Vit,
    (objective, heads): (&Objective, &Parameters),
    batches: &[(Batch, Targets)],
    normalisation: Normalisation,
    device: &Device,
) -> Result<Vec<Agreement>, DistillError> {
    let of_side =
        |batches: &[(Batch, Targets)]| agreement(student, (objective, heads), batches, normalisation, device);
    batches.chunk_by(|(a, _), (b, _)| a.student.side_px == b.student.side_px).map(of_side).collect()
}

/// batches: at least one, all of one side.
fn agreement(
    student: &Vit,
    (objective, heads): (&Objective, &Parameters),
    batches: &[(Batch, Targets)],
    normalisation: Normalisation,
    device: &Device,
) -> Result<Agreement, DistillError> {
    let (mut patches, mut cls) = (Vec::new(), Vec::new());
    let cosines = |[got, want]: [Tensor; 2]| -> candle_core::Result<Vec<f64>> {
        cosine(&got, &want)?.affine(-1.0, 1.0)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
    };
    for (batch, targets) in batches {
        let [of_cls, of_patches] =
            objective.comparisons(heads, &tokens(student, batch, normalisation, device)?, targets)?;
        patches.extend(cosines(of_patches)?);
        cls.extend(cosines(of_cls)?);
    }
    let patches = sorted(patches);
    Ok(Agreement {
        side_px: batches[0].0.student.side_px,
        patch_median: quantile(&patches, 0.5),
        patch_p5: quantile(&patches, 0.05),
        cls: mean(&cls),
    })
}

/// A student's tokens of held-out images.
///
/// # Errors
/// Those of candle.
pub fn tokens(
    student: &Vit,
    batch: &Batch,
    normalisation: Normalisation,
    device: &Device,
) -> Result<Tokens, DistillError> {
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
