//! What a model file says about itself: one JSON under the key `dinov2_edge` of the safetensors metadata.
//!
//! Unknown fields and unknown versions are refused: a reader that guesses computes wrong features.

use dinov2_core::VitSpec;
use serde::{Deserialize, Serialize};

use crate::Storage;

/// The key of the metadata in the safetensors header.
pub const METADATA_KEY: &str = "dinov2_edge";
/// The version of the format that this crate reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Everything in a model file besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Shape of the model.
    pub spec: VitSpec,
    /// How its matrices are stored.
    pub storage: Storage,
    /// What happens to pixels before the patch embedding.
    pub preprocessing: Preprocessing,
    /// Where the weights come from.
    pub provenance: Provenance,
    /// How the integers came about, and what they cost, where `dinov2-edge quantize` wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<Quantisation>,
}

/// How a file was quantised, and how true the engine's int8 arithmetic stays to f32 with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantisation {
    /// Largest magnitude of a weight, in units of its scale.
    pub weight_limit: u8,
    /// Images that scales and roundings were fitted to.
    pub calibration_images: u32,
    /// Measured on images that nothing was fitted to, one entry per size.
    pub fidelity: Vec<Fidelity>,
}

/// Patch cosine of int8 features to those of the unquantised weights in f32, at one size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fidelity {
    /// Short side of the images.
    pub size_px: u32,
    /// Patches that were compared.
    pub patches: u32,
    /// Median over the patches.
    pub median: f64,
    /// 5th percentile over the patches.
    pub p5: f64,
}

impl Quantisation {
    /// The int8 gate: least median of the patch cosine.
    pub const LEAST_MEDIAN: f64 = 0.999;
    /// The int8 gate: least 5th percentile of the patch cosine.
    pub const LEAST_P5: f64 = 0.997;

    /// Whether it was measured, and at every size the gate was met.
    pub fn meets_gate(&self) -> bool {
        let meets = |f: &Fidelity| f.median >= Self::LEAST_MEDIAN && f.p5 >= Self::LEAST_P5;
        !self.fidelity.is_empty() && self.fidelity.iter().all(meets)
    }
}

/// Normalisation of pixels; engines fold it into the patch embedding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Form of the pixels.
    pub input: PixelFormat,
    /// Mean per channel, RGB order, of pixels in 0..=1.
    pub mean: [f32; 3],
    /// Standard deviation per channel, RGB order, of pixels in 0..=1.
    pub std: [f32; 3],
}

/// Mean and standard deviation per channel, RGB order, of pixels in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Subtracted first.
    pub mean: [f32; 3],
    /// Divided by afterwards.
    pub std: [f32; 3],
}

/// ImageNet statistics, RGB order, inputs in 0..=1 (DINOv2 evaluation transform).
pub const IMAGENET: Normalisation = Normalisation { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// Form of the pixels that a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PixelFormat {
    /// Interleaved RGB, one byte per channel.
    RgbU8,
}

/// Kind of the file that the weights were converted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceFormat {
    /// DINOv2's own state dict.
    Official,
    /// Hugging Face transformers.
    HuggingFace,
    /// timm.
    Timm,
    /// An ONNX graph.
    Onnx,
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Name of the source: a repository, or the file that was converted.
    pub source: String,
    /// Kind of the source.
    pub source_format: SourceFormat,
    /// Licence of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Whatever else a user should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Program and version that wrote the file.
    pub converter: String,
}

impl std::fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Official => "official",
            Self::HuggingFace => "Hugging Face",
            Self::Timm => "timm",
            Self::Onnx => "ONNX",
        })
    }
}

impl Metadata {
    /// Parses and checks the JSON. Problems are told without the file's name.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u64,
        }
        let version: Version =
            serde_json::from_str(json).map_err(|error| format!("metadata {METADATA_KEY:?}: {error}"))?;
        if version.format_version != u64::from(FORMAT_VERSION) {
            return Err(format!(
                "metadata {METADATA_KEY:?} format_version: expected {FORMAT_VERSION}, got {}",
                version.format_version
            ));
        }
        let metadata: Self =
            serde_json::from_str(json).map_err(|error| format!("metadata {METADATA_KEY:?}: {error}"))?;
        metadata.spec.validate().map_err(|error| format!("metadata {METADATA_KEY:?} spec: {error}"))?;
        metadata.preprocessing.normalisation().check()?;
        Ok(metadata)
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and finite numbers are JSON")
    }
}

impl Preprocessing {
    /// Mean and standard deviation.
    pub fn normalisation(&self) -> Normalisation {
        Normalisation { mean: self.mean, std: self.std }
    }
}

impl Normalisation {
    /// Refuses what cannot be folded into finite weights.
    pub(crate) fn check(&self) -> Result<(), String> {
        let sound = self.mean.iter().all(|mean| mean.is_finite())
            && self.std.iter().all(|std| std.is_finite() && *std > 0.0);
        if sound {
            Ok(())
        } else {
            Err(format!(
                "preprocessing: expected a finite mean and a positive std, got {:?} and {:?}",
                self.mean, self.std
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"format_version":1,"spec":{"dim":64,"depth":1,"heads":1,"patch_size":14,"registers":0,
        "mlp":"swiglu","mlp_hidden":96,"layer_scale":true,"norm_eps":1e-6,"position_table":{"rows":3,"cols":3},
        "position_convention":"official_scale_factor"},"storage":"int8",
        "preprocessing":{"input":"rgb_u8","mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]},
        "provenance":{"source":"a","source_format":"official","licence":"Apache-2.0","converter":"dinov2-edge 0.1.0"}}"#;

    #[test]
    fn json_is_read_and_written() {
        let metadata = Metadata::parse(JSON).unwrap();
        assert_eq!(metadata.storage, Storage::Int8);
        assert_eq!(metadata.preprocessing.normalisation(), IMAGENET);
        assert_eq!(metadata.spec.norm_eps, 1e-6);
        assert_eq!(Metadata::parse(&metadata.to_json()).unwrap(), metadata);
    }

    #[test]
    fn the_unknown_is_refused_with_its_name() {
        for (from, to, told) in [
            (r#""format_version":1"#, r#""format_version":2"#, "format_version: expected 1, got 2"),
            (r#""storage":"int8""#, r#""storage":"int3""#, "unknown variant `int3`"),
            (r#""dim":64"#, r#""dim":64,"extra":1"#, "unknown field `extra`"),
            (r#""dim":64"#, r#""dim":0"#, "dim: expected 1..=16384, got 0"),
            (r#""dim":64"#, r#""dim":-1"#, "expected usize"),
            (r#""input":"rgb_u8""#, r#""input":"bgr_u8""#, "unknown variant `bgr_u8`"),
            ("0.229", "0.0", "positive std"),
            (r#""source":"a","#, "", "missing field `source`"),
            ("{\"format", "[\"format", "metadata \"dinov2_edge\""),
        ] {
            let error = Metadata::parse(&JSON.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
