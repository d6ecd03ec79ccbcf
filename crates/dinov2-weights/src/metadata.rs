//! Metadata of a model file: one JSON object under the key `dinov2_edge` of the safetensors metadata.
//!
//! Unknown fields and unknown versions are errors, because ignoring them could give wrong features.

use dinov2_core::VitSpec;
use serde::{Deserialize, Serialize};

use crate::{INT4_GROUPS, Storage};

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
    /// Preprocessing of pixels before the patch embedding.
    pub preprocessing: Preprocessing,
    /// Where the weights come from.
    pub provenance: Provenance,
    /// How the file was quantized and with what fidelity, if `dinov2-edge quantize` or `training qat` wrote it.
    #[serde(rename = "quantisation", default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
}

/// How a file was quantized, and the fidelity of int8 arithmetic with it to f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// Largest magnitude of an int8 weight, in units of its scale. int4 matrices are widened to it for int8 arithmetic.
    pub weight_limit: u8,
    /// Number of weights that share a scale in an int4 file: one of [`INT4_GROUPS`]. `None` for int8 files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int4_group: Option<usize>,
    /// Images that scales and roundings were fitted to.
    pub calibration_images: u32,
    /// The weights were trained with this rounding (quantization-aware training), so no unquantized model exists.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trained: bool,
    /// Measured on held-out images, one entry per size.
    pub fidelity: Vec<Fidelity>,
}

/// Patch cosine between int8 features and f32 features of the unquantized weights, at one size. For weights trained in
/// int8, the f32 features are those of the file's own numbers.
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

/// Least patch cosine to f32 that a quantized model must reach at every size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Least median over the patches.
    pub median: f64,
    /// Least 5th percentile over the patches.
    pub p5: f64,
}

impl Gate {
    /// Of int8 matrices.
    pub const INT8: Self = Self { median: 0.999, p5: 0.997 };
    /// Of int4 matrices.
    pub const INT4: Self = Self { median: 0.98, p5: 0.95 };

    /// Whether there are measurements, and all of them reach the gate.
    pub fn is_met(self, fidelity: &[Fidelity]) -> bool {
        !fidelity.is_empty() && fidelity.iter().all(|f| f.median >= self.median && f.p5 >= self.p5)
    }
}

impl Quantization {
    /// The gate of this kind of file.
    pub fn gate(&self) -> Gate {
        if self.int4_group.is_some() { Gate::INT4 } else { Gate::INT8 }
    }

    /// Whether there are measurements, and all of them reach the gate.
    pub fn meets_gate(&self) -> bool {
        self.gate().is_met(&self.fidelity)
    }

    fn check(&self, storage: Storage) -> Result<(), String> {
        if !(1..=127).contains(&self.weight_limit) {
            return Err(format!("weight_limit: expected 1..=127, got {}", self.weight_limit));
        }
        match (storage, self.int4_group) {
            (Storage::Int4, Some(group)) if INT4_GROUPS.contains(&group) => Ok(()),
            (Storage::Int4, got) => {
                let got = got.map_or("none".into(), |group| group.to_string());
                Err(format!("int4_group: expected 32 or 64, got {got}"))
            }
            (_, None) => Ok(()),
            (storage, Some(group)) => {
                Err(format!("int4_group: expected none with storage {storage}, got {group}"))
            }
        }
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
    /// How the source resizes images, if it says so. A record only: the size of a run is chosen by its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_fit: Option<SourceFit>,
}

/// How the source of a model resizes images for training or evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFit {
    /// Resampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpolation: Option<Interpolation>,
    /// Size that images are resized to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// Centred part that is cut out afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<PixelSize>,
}

/// Resampling of images. This program's own is [`Interpolation::Bicubic`], with PIL's antialiasing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// The mean of the pixels under a box.
    Box,
    /// Linear in both directions.
    Bilinear,
    /// A Hamming window.
    Hamming,
    /// Cubic in both directions.
    Bicubic,
    /// A Lanczos window.
    Lanczos,
}

/// Size that a source resizes images to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resize {
    /// The short side, in pixels; the aspect is kept.
    ShortSide(u32),
    /// Exactly this size; the aspect may change.
    Exact(PixelSize),
    /// The largest size within this one; the aspect is kept.
    Within(PixelSize),
}

/// Height and width in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelSize {
    /// From top to bottom.
    pub height_px: u32,
    /// From left to right.
    pub width_px: u32,
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
#[non_exhaustive]
pub enum PixelFormat {
    /// Interleaved RGB, one byte per channel.
    RgbU8,
}

/// Kind of the file that the weights were converted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SourceFormat {
    /// DINOv2's own state dict.
    Official,
    /// Hugging Face transformers.
    HuggingFace,
    /// timm.
    Timm,
    /// An ONNX graph.
    Onnx,
    /// Not converted: weights of this project's own training.
    Training,
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
    /// Notes for users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Program and version that wrote the file.
    pub converter: String,
}

impl std::fmt::Display for Interpolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nearest => "nearest",
            Self::Box => "box",
            Self::Bilinear => "bilinear",
            Self::Hamming => "hamming",
            Self::Bicubic => "bicubic",
            Self::Lanczos => "lanczos",
        })
    }
}

impl std::fmt::Display for PixelSize {
    /// `WIDTHxHEIGHT`, as everywhere in this program.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width_px, self.height_px)
    }
}

impl std::fmt::Display for SourceFit {
    /// `short side 256, bicubic, centre crop 224x224`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let resize = self.resize.map(|resize| match resize {
            Resize::ShortSide(side) => format!("short side {side}"),
            Resize::Exact(size) => size.to_string(),
            Resize::Within(size) => format!("within {size}"),
        });
        let crop = self.crop.map(|size| format!("centre crop {size}"));
        let parts = [resize, self.interpolation.map(|kind| kind.to_string()), crop];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl std::fmt::Display for SourceFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Official => "official",
            Self::HuggingFace => "Hugging Face",
            Self::Timm => "timm",
            Self::Onnx => "ONNX",
            Self::Training => "training",
        })
    }
}

impl Metadata {
    /// Parses and checks the JSON. Messages do not contain the file's name; callers add it.
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
        let quantization = match (&metadata.quantization, metadata.storage) {
            (Some(quantization), storage) => quantization.check(storage),
            (None, Storage::Int4) => Err("expected one with storage int4, got none".into()),
            (None, _) => Ok(()),
        };
        quantization.map_err(|problem| format!("metadata {METADATA_KEY:?} quantisation: {problem}"))?;
        Ok(metadata)
    }

    /// Of an int4 file, weights that share a scale.
    pub(crate) fn int4_group(&self) -> Option<usize> {
        self.quantization.as_ref().and_then(|quantization| quantization.int4_group)
    }

    pub(crate) fn to_json(&self) -> String {
        // serde_json fails on maps with other keys than strings and on types that refuse; there are none here.
        serde_json::to_string(self).expect("structs of strings and numbers are JSON")
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
            (r#""storage":"int8""#, r#""storage":"int4""#, "quantisation: expected one with storage int4"),
        ] {
            let error = Metadata::parse(&JSON.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_gate_is_that_of_the_storage() {
        let with = |storage: &str, quantization: &str| {
            let to = format!(
                r#""storage":"{storage}","quantisation":{{{quantization},"calibration_images":4,"fidelity":
                [{{"size_px":224,"patches":256,"median":0.985,"p5":0.96}}]}}"#
            );
            Metadata::parse(&JSON.replacen(r#""storage":"int8""#, &to, 1))
        };
        let int4 = with("int4", r#""weight_limit":64,"int4_group":32"#).unwrap();
        assert_eq!(int4.quantization.as_ref().map(Quantization::meets_gate), Some(true));
        assert_eq!(Metadata::parse(&int4.to_json()).unwrap(), int4);
        let int8 = with("int8", r#""weight_limit":64"#).unwrap();
        assert_eq!(int8.quantization.as_ref().map(Quantization::meets_gate), Some(false));
        for (storage, quantization, told) in [
            ("int4", r#""weight_limit":64"#, "int4_group: expected 32 or 64, got none"),
            ("int4", r#""weight_limit":64,"int4_group":3"#, "int4_group: expected 32 or 64, got 3"),
            ("int4", r#""weight_limit":0,"int4_group":32"#, "weight_limit: expected 1..=127, got 0"),
            ("int8", r#""weight_limit":128"#, "weight_limit: expected 1..=127, got 128"),
            ("int8", r#""weight_limit":64,"int4_group":32"#, "expected none with storage int8, got 32"),
        ] {
            let error = with(storage, quantization).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
