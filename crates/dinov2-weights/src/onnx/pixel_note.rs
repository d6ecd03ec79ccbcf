//! Mean and standard deviation of the pixels, carried in the metadata of an exported ONNX file, whose graph takes
//! normalised pixels.

use super::proto::ModelProto;
use crate::metadata::Normalisation;

/// Metadata: mean per channel, RGB order, of pixels in 0..=1.
pub const MEAN_KEY: &str = "dinov2_edge.mean";
/// Metadata: standard deviation per channel, RGB order, of pixels in 0..=1.
pub const STD_KEY: &str = "dinov2_edge.std";

/// What a file notes; `None` for files of others.
///
/// # Errors
/// A note that is incomplete, or that holds other than numbers that can be folded.
pub(super) fn normalisation(model: &ModelProto) -> Result<Option<Normalisation>, String> {
    let (Some(mean), Some(std)) = (channels(model, MEAN_KEY)?, channels(model, STD_KEY)?) else {
        return Ok(None);
    };
    let normalisation = Normalisation { mean, std };
    normalisation.check()?;
    Ok(Some(normalisation))
}

fn channels(model: &ModelProto, key: &str) -> Result<Option<[f32; 3]>, String> {
    let Some(entry) = model.metadata_props.iter().find(|entry| entry.key == key) else { return Ok(None) };
    let values: Result<Vec<f32>, _> = entry.value.split_whitespace().map(str::parse).collect();
    let values = values.ok().and_then(|values| <[f32; 3]>::try_from(values).ok());
    let got = || entry.value.chars().take(60).collect::<String>();
    values.map(Some).ok_or_else(|| format!("metadata {key:?}: expected three numbers, got {:?}", got()))
}
