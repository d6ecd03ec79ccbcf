//! Preprocessing of pixels by a source: `preprocessor_config.json` of Hugging Face.
//!
//! A processor computes `(pixel * rescale_factor - image_mean) / image_std`; each step can be switched off. This is affine
//! per channel, so it is always a mean and a standard deviation of pixels in 0..=1, which engines fold into the patch
//! embedding. Steps that are not affine are errors. Size, crop and resampling are recorded but not applied.

use serde_json::Value;

use super::fields::{Fields, pixel_size, shown, side_px};
use crate::metadata::{Interpolation, Normalisation, Resize, SourceFit};

/// Mean and standard deviation of the processors that CLIP's authors and its followers use.
const CLIP: [[f64; 3]; 2] =
    [[0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_58, 0.275_777_11]];
/// Hugging Face's `IMAGENET_STANDARD_MEAN` and `_STD`.
const HALVES: [[f64; 3]; 2] = [[0.5; 3], [0.5; 3]];
/// Hugging Face's `IMAGENET_DEFAULT_MEAN` and `_STD`.
const IMAGENET: [[f64; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// Default statistics of each class of processors.
const DEFAULTS: [(&str, [[f64; 3]; 2]); 20] = [
    ("Bit", CLIP),
    ("CLIP", CLIP),
    ("Beit", HALVES),
    ("ConvNext", HALVES),
    ("DPT", HALVES),
    ("DeiT", HALVES),
    ("DepthPro", HALVES),
    ("Siglip", HALVES),
    ("ViT", HALVES),
    ("VitMatte", HALVES),
    ("ZoeDepth", HALVES),
    ("ConditionalDetr", IMAGENET),
    ("DINOv3ViT", IMAGENET),
    ("DeformableDetr", IMAGENET),
    ("Detr", IMAGENET),
    ("Mask2Former", IMAGENET),
    ("MaskFormer", IMAGENET),
    ("OneFormer", IMAGENET),
    ("Segformer", IMAGENET),
    ("Yolos", IMAGENET),
];

/// Processors that take a size of one number for the short side (`default_to_square = False`).
const SHORT_SIDE: [&str; 3] = ["Bit", "CLIP", "ConvNext"];

/// Switches that do not change what a pixel's value becomes: geometry, labels, and grey or RGBA to RGB, which sources
/// of this program do anyway.
const HARMLESS: [&str; 14] = [
    "do_resize",
    "do_center_crop",
    "do_pad",
    "do_convert_rgb",
    "do_rescale",
    "do_normalize",
    "do_reduce_labels",
    "do_convert_annotations",
    "do_align_long_axis",
    "do_thumbnail",
    "do_crop_margin",
    "do_image_splitting",
    "do_crop",
    "do_random_crop",
];
/// Switches without the prefix `do_` that change pixel values.
const HARMFUL: [&str; 2] = ["rescale_offset", "offset"];

/// Preprocessing of a source.
#[derive(Debug, Default)]
pub(super) struct Pixels {
    pub(super) normalisation: Option<Normalisation>,
    pub(super) fit: Option<SourceFit>,
}

/// Reads the object of an image processor.
pub(super) fn pixels(processor: Fields<'_>) -> Result<Pixels, String> {
    refuse_other_steps(processor)?;
    let factor = match processor.flag("do_rescale")? {
        Some(false) => 1.0,
        _ => processor.number("rescale_factor")?.unwrap_or(1.0 / 255.0),
    };
    if !(factor.is_finite() && factor > 0.0) {
        return Err(format!("rescale_factor: expected a positive number, got {factor}"));
    }
    let [mean, std] = match processor.flag("do_normalize")? {
        Some(false) => [[0.0; 3], [1.0; 3]],
        _ => statistics(processor)?,
    };
    Ok(Pixels { normalisation: Some(of_unit_pixels(mean, std, factor)?), fit: fit(processor)? })
}

/// Refuses switches that are on and whose effect is not an affine map of each channel.
fn refuse_other_steps(processor: Fields<'_>) -> Result<(), String> {
    for (name, value) in processor.0 {
        let unknown = name.starts_with("do_") && !HARMLESS.contains(&name.as_str());
        let off = value.is_null() || *value == Value::Bool(false);
        if (unknown || HARMFUL.contains(&name.as_str())) && !off {
            return Err(format!(
                "{name}: expected only what is folded into a mean and a std, got {}",
                shown(value)
            ));
        }
    }
    Ok(())
}

/// Mean and standard deviation as stated, else as the processor's class has them.
fn statistics(processor: Fields<'_>) -> Result<[[f64; 3]; 2], String> {
    let class = class(processor);
    let usual = DEFAULTS.iter().find(|(name, _)| Some(*name) == class).map(|(_, usual)| usual);
    let stated = |name: &str, usual: Option<[f64; 3]>| {
        let problem = || {
            format!(
                "{name}: expected three numbers, or a known image_processor_type, got none for {}",
                class.unwrap_or("no class")
            )
        };
        processor.channels(name)?.or(usual).ok_or_else(problem)
    };
    Ok([
        stated("image_mean", usual.map(|usual| usual[0]))?,
        stated("image_std", usual.map(|usual| usual[1]))?,
    ])
}

/// The class of a processor without the common suffix.
fn class(processor: Fields<'_>) -> Option<&str> {
    let class =
        processor.text("image_processor_type").or_else(|| processor.text("feature_extractor_type"))?;
    let class = class.trim_end_matches("Fast").trim_end_matches("Pil");
    Some(class.trim_end_matches("ImageProcessor").trim_end_matches("FeatureExtractor"))
}

/// `(pixel * factor - mean) / std` of u8 pixels, as a mean and a standard deviation of pixels in 0..=1.
pub(super) fn of_unit_pixels(mean: [f64; 3], std: [f64; 3], factor: f64) -> Result<Normalisation, String> {
    let sound =
        mean.iter().all(|mean| mean.is_finite()) && std.iter().all(|std| std.is_finite() && *std > 0.0);
    if !sound {
        return Err(format!(
            "image_mean and image_std: expected finite means and positive deviations, got {mean:?} and {std:?}"
        ));
    }
    let of_unit = |value: f64| (value / (255.0 * factor)) as f32;
    let normalisation = Normalisation { mean: mean.map(of_unit), std: std.map(of_unit) };
    normalisation.check()?;
    Ok(normalisation)
}

/// Size, crop and resampling of the file. Steps that are switched off are left out.
fn fit(processor: Fields<'_>) -> Result<Option<SourceFit>, String> {
    let resizes = processor.flag("do_resize")? != Some(false);
    let keeps_aspect = class(processor).is_none_or(|class| SHORT_SIDE.contains(&class));
    let size = |value: &Value| resize(value, keeps_aspect);
    let crops = processor.flag("do_center_crop")?.unwrap_or(false);
    let fit = SourceFit {
        interpolation: if resizes { processor.parsed("resample", "a filter of PIL", filter)? } else { None },
        resize: if resizes { processor.parsed("size", "a size", size)? } else { None },
        crop: if crops { processor.size("crop_size")? } else { None },
    };
    Ok((fit != SourceFit::default()).then_some(fit))
}

/// PIL's number of a filter, or its name.
fn filter(value: &Value) -> Option<Interpolation> {
    match value.as_u64() {
        Some(0) => Some(Interpolation::Nearest),
        Some(1) => Some(Interpolation::Lanczos),
        Some(2) => Some(Interpolation::Bilinear),
        Some(3) => Some(Interpolation::Bicubic),
        Some(4) => Some(Interpolation::Box),
        Some(5) => Some(Interpolation::Hamming),
        Some(_) => None,
        None => interpolation(value.as_str()?),
    }
}

/// A filter by its name.
pub(super) fn interpolation(name: &str) -> Option<Interpolation> {
    match name.to_ascii_lowercase().as_str() {
        "nearest" | "nearest-exact" => Some(Interpolation::Nearest),
        "box" => Some(Interpolation::Box),
        "bilinear" => Some(Interpolation::Bilinear),
        "hamming" => Some(Interpolation::Hamming),
        "bicubic" => Some(Interpolation::Bicubic),
        "lanczos" => Some(Interpolation::Lanczos),
        _ => None,
    }
}

/// A size of Hugging Face: `shortest_edge` is the short side, `height` and `width` are exact; a number is the one or the
/// other, as the processor has it.
fn resize(value: &Value, keeps_aspect: bool) -> Option<Resize> {
    let Value::Object(sides) = value else {
        return match value {
            Value::Array(sides) => match sides.as_slice() {
                [height, width] => Some(Resize::Exact(pixel_size(height, width)?)),
                _ => None,
            },
            side if keeps_aspect => Some(Resize::ShortSide(side_px(side)?)),
            side => Some(Resize::Exact(pixel_size(side, side)?)),
        };
    };
    let of = |name: &str| sides.get(name).filter(|side| !side.is_null());
    match (of("shortest_edge"), of("height"), of("width"), of("max_height"), of("max_width")) {
        (Some(short), ..) => Some(Resize::ShortSide(side_px(short)?)),
        (None, Some(height), Some(width), ..) => Some(Resize::Exact(pixel_size(height, width)?)),
        (None, _, _, Some(height), Some(width)) => Some(Resize::Within(pixel_size(height, width)?)),
        _ => {
            let long = of("longest_edge")?;
            Some(Resize::Within(pixel_size(long, long)?))
        }
    }
}
