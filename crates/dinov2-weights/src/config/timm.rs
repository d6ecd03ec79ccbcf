//! `config.json` of timm: architecture, `pretrained_cfg` and `model_args`.
//!
//! timm pixels are in 0..=1 before mean and standard deviation. `img_size` of `model_args`, else `input_size` of
//! `pretrained_cfg`, is the size that the position table is for.

use dinov2_core::PositionConvention;
use serde_json::Value;

use super::fields::{Fields, shown};
use super::pixels::{Pixels, interpolation, of_unit_pixels};
use crate::checkpoint::{Hints, StatedNumber, StatedSize};
use crate::metadata::{PixelSize, Resize, SourceFit};

/// Defaults of `timm.data` for values that `pretrained_cfg` lacks.
const USUAL_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const USUAL_STD: [f64; 3] = [0.229, 0.224, 0.225];
/// As above: images are resized to the crop's size divided by this.
const USUAL_CROP_PCT: f64 = 0.875;

/// Arguments that do not change the computation, or that the tensors determine.
const HARMLESS: [&str; 28] = [
    "attn_drop_rate",
    "drop_path_rate",
    "drop_rate",
    "dynamic_img_pad",
    "dynamic_img_size",
    "fc_norm",
    "features_only",
    "fix_init",
    "global_pool",
    "img_size",
    "init_values",
    "mlp_ratio",
    "no_embed_class",
    "num_classes",
    "num_heads",
    "embed_dim",
    "depth",
    "patch_drop_rate",
    "patch_size",
    "pool_include_prefix",
    "pos_drop_rate",
    "proj_bias",
    "proj_drop_rate",
    "qk_norm",
    "qkv_bias",
    "reg_tokens",
    "strict_img_size",
    "weight_init",
];
/// Arguments that change the computation, with DINOv2's values.
const DECISIVE: [(&str, &[&str]); 14] = [
    ("act_layer", &["gelu", "silu", "swish"]),
    ("attn_layer", &[]),
    ("block_fn", &[]),
    ("class_token", &["true"]),
    ("embed_layer", &[]),
    ("embed_norm_layer", &[]),
    ("final_norm", &["true"]),
    ("in_chans", &["3"]),
    ("mlp_layer", &[]),
    ("norm_layer", &["layernorm"]),
    ("pos_embed", &["learn"]),
    ("pre_norm", &["false"]),
    ("scale_attn_norm", &["false"]),
    ("scale_mlp_norm", &["false"]),
];

/// Reads a timm configuration. Older files have the keys of `pretrained_cfg` at the top.
pub(super) fn hints(config: Fields<'_>) -> Result<Hints, String> {
    let pretrained = config.object("pretrained_cfg").unwrap_or(config);
    let arguments = config.object("model_args");
    let pixels = pixels(pretrained)?;
    let mut hints = Hints {
        timm: true,
        convention: Some(PositionConvention::ExactSizeAntialias),
        normalisation: pixels.normalisation,
        source_fit: pixels.fit,
        licence: pretrained.text("license").map(str::to_string),
        stated: config.count("num_features")?.map(|dim| (StatedNumber::Dim, dim)).into_iter().collect(),
        image_size: stated_size(pretrained, "input_size")?,
        ..Hints::default()
    };
    if let Some(arguments) = arguments {
        check(arguments)?;
        hints.heads = arguments.count("num_heads")?;
        hints.class_position = arguments.flag("no_embed_class")?.map(|without| !without);
        hints.image_size = stated_size(arguments, "img_size")?.or(hints.image_size);
        let numbers = [
            (StatedNumber::Dim, "embed_dim"),
            (StatedNumber::Depth, "depth"),
            (StatedNumber::PatchSize, "patch_size"),
            (StatedNumber::Registers, "reg_tokens"),
        ];
        for (field, name) in numbers {
            if !arguments.value(name).is_some_and(Value::is_array) {
                hints.stated.extend(arguments.count(name)?.map(|value| (field, value)));
            }
        }
    }
    Ok(hints)
}

fn stated_size(fields: Fields<'_>, field: &'static str) -> Result<Option<StatedSize>, String> {
    Ok(fields.size(field)?.map(|size| StatedSize { field, size }))
}

/// Refuses arguments that make another model than DINOv2.
fn check(arguments: Fields<'_>) -> Result<(), String> {
    for (name, value) in arguments.0 {
        if value.is_null() || HARMLESS.contains(&name.as_str()) {
            continue;
        }
        let known = DECISIVE.iter().find(|(decisive, _)| decisive == name).map(|(_, known)| *known);
        let word = value.as_str().map_or_else(|| value.to_string(), str::to_ascii_lowercase);
        if !known.is_some_and(|known| known.contains(&word.as_str())) {
            let expected = match known {
                Some([]) => "DINOv2's own".to_string(),
                Some(known) => known.join(" or "),
                None => "an argument of timm's VisionTransformer".to_string(),
            };
            return Err(format!("model_args.{name}: expected {expected}, got {}", shown(value)));
        }
    }
    Ok(())
}

/// Mean, standard deviation and fit of a `pretrained_cfg`.
pub(super) fn pixels(pretrained: Fields<'_>) -> Result<Pixels, String> {
    let list = |name: &str| {
        let list = |value: &Value| value.is_array().then_some(());
        pretrained.parsed(name, "three numbers", list)?;
        pretrained.channels(name)
    };
    let mean = list("mean")?.unwrap_or(USUAL_MEAN);
    let std = list("std")?.unwrap_or(USUAL_STD);
    let normalisation = of_unit_pixels(mean, std, 1.0 / 255.0)?;
    Ok(Pixels { normalisation: Some(normalisation), fit: fit(pretrained)? })
}

/// timm resizes so that the crop, `input_size`, is `crop_pct` of the result: by the short side (crop mode `center`) or by
/// both sides (`squash`). Its other modes are not recorded.
fn fit(pretrained: Fields<'_>) -> Result<Option<SourceFit>, String> {
    let crop = pretrained.size("input_size")?;
    let share = pretrained.number("crop_pct")?.filter(|share| *share > 0.0).unwrap_or(USUAL_CROP_PCT);
    let scaled = |side: u32| (f64::from(side) / share).floor() as u32;
    let resize = |crop: PixelSize| match pretrained.text("crop_mode") {
        None | Some("center") if crop.height_px == crop.width_px => {
            Some(Resize::ShortSide(scaled(crop.height_px)))
        }
        Some("squash") => {
            let (height_px, width_px) = (scaled(crop.height_px), scaled(crop.width_px));
            Some(Resize::Exact(PixelSize { height_px, width_px }))
        }
        _ => None,
    };
    let interpolation = pretrained.text("interpolation").and_then(interpolation);
    let fit = SourceFit { interpolation, resize: crop.and_then(resize), crop };
    Ok((fit != SourceFit::default()).then_some(fit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Interpolation, Normalisation};

    fn parse(json: &str) -> Result<Hints, String> {
        hints(Fields(&serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn nested_and_flat_configurations_say_the_same() {
        let pretrained = r#""mean":[0.5,0.25,0.125],"std":[1,0.5,0.25],"interpolation":"bilinear","crop_pct":1.0,
            "input_size":[3,42,56],"license":"x""#;
        let nested =
            format!(r#"{{"architecture":"vit","num_features":64,"pretrained_cfg":{{{pretrained}}}}}"#);
        let flat = format!(r#"{{"architecture":"vit","num_features":64,{pretrained}}}"#);
        for json in [nested, flat] {
            let hints = parse(&json).unwrap();
            assert!(hints.timm && hints.licence.as_deref() == Some("x"));
            let expected = Normalisation { mean: [0.5, 0.25, 0.125], std: [1.0, 0.5, 0.25] };
            assert_eq!(hints.normalisation, Some(expected));
            assert_eq!(hints.source_fit.unwrap().interpolation, Some(Interpolation::Bilinear));
            let size = PixelSize { height_px: 42, width_px: 56 };
            assert_eq!(hints.image_size, Some(StatedSize { field: "input_size", size }));
            assert_eq!(hints.stated, [(StatedNumber::Dim, 64)]);
        }
    }

    #[test]
    fn arguments_are_honoured_or_refused() {
        let with = |arguments: &str| {
            parse(&format!(
                r#"{{"architecture":"vit","pretrained_cfg":{{"input_size":[3,56,56]}},"model_args":{{{arguments}}}}}"#
            ))
        };
        let hints =
            with(r#""img_size":[42,56],"num_heads":3,"no_embed_class":true,"reg_tokens":4,"act_layer":null"#);
        let hints = hints.unwrap();
        assert_eq!(hints.image_size.unwrap().size, PixelSize { height_px: 42, width_px: 56 });
        assert_eq!((hints.heads, hints.class_position), (Some(3), Some(false)));
        assert_eq!(hints.stated, [(StatedNumber::Registers, 4)]);
        for (arguments, told) in [
            (
                r#""act_layer":"gelu_tanh""#,
                "model_args.act_layer: expected gelu or silu or swish, got \"gelu_tanh\"",
            ),
            (r#""norm_layer":"rmsnorm""#, "model_args.norm_layer: expected layernorm"),
            (r#""class_token":false"#, "model_args.class_token: expected true, got false"),
            (r#""in_chans":4"#, "model_args.in_chans: expected 3, got 4"),
            (r#""rope":true"#, "model_args.rope: expected an argument of timm's VisionTransformer, got true"),
            (r#""img_size":[1,2,3,4]"#, "img_size: expected a side or [height, width], got [1,2,3,4]"),
        ] {
            let error = with(arguments).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        for (pretrained, told) in [
            (r#""mean":0.5"#, "mean: expected three numbers, got 0.5"),
            (r#""mean":[0.5]"#, "mean: expected three numbers, got [0.5]"),
            (r#""std":[0,1,1]"#, "positive deviations"),
        ] {
            let error = parse(&format!(r#"{{"architecture":"vit",{pretrained}}}"#)).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
