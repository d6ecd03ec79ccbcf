//! `config.json` of Hugging Face. The DINOv2 in it may be the backbone of a depth, segmentation or other model.

use dinov2_core::PositionConvention;
use serde_json::Value;

use super::fields::{Fields, shown};
use crate::checkpoint::{Hints, StatedNumber, StatedSize};

const PLAIN: &str = "dinov2";
const WITH_REGISTERS: &str = "dinov2_with_registers";
/// Deepest nesting of configurations that is searched.
const MAX_NESTING: usize = 4;
/// Published models that configurations name instead of repeating their configuration.
const PUBLISHED: &str = "facebook/dinov2-";

/// Reads a configuration.
///
/// # Errors
/// If the model is not DINOv2, has another activation or number of channels, or has quantized weights.
pub(super) fn hints(config: Fields<'_>) -> Result<Hints, String> {
    if let Some(quantized) = config.object("quantization_config") {
        let method = quantized.text("quant_method").unwrap_or("unknown");
        return Err(format!(
            "quantization_config: expected weights in f32, f16 or bf16, got quantization by {method:?} (convert the \
             checkpoint that it was made from)"
        ));
    }
    match config.text("model_type") {
        None | Some(PLAIN | WITH_REGISTERS) => of_backbone(config),
        Some(other) => of_larger(config, other),
    }
}

/// A model that has DINOv2 as a part: its configuration is nested, or names a published model.
fn of_larger(config: Fields<'_>, model_type: &str) -> Result<Hints, String> {
    let mut nested = Vec::new();
    collect(config, MAX_NESTING, &mut nested);
    let is_dinov2 = |config: &&Fields<'_>| matches!(config.text("model_type"), Some(PLAIN | WITH_REGISTERS));
    if let Some(first) = nested.iter().find(is_dinov2) {
        if nested.iter().filter(is_dinov2).any(|other| other.0 != first.0) {
            return Err(format!(
                "configuration of a {model_type:?}: expected one DINOv2 backbone, got several that differ"
            ));
        }
        return hints(*first);
    }
    if let Some(name) = config.text("backbone").filter(|name| name.starts_with(PUBLISHED))
        && config.flag("use_timm_backbone")? != Some(true)
    {
        let registers = name.contains("with-registers");
        return Ok(Hints { convention: Some(convention(registers)), ..Hints::default() });
    }
    let parts: Vec<&str> = nested.iter().filter_map(|config| config.text("model_type")).collect();
    let with = match parts.as_slice() {
        [] => config.text("backbone").map(|name| format!(" with the backbone {name:?}")).unwrap_or_default(),
        parts => format!(" of {}", parts.join(", ")),
    };
    Err(format!(
        "model_type: expected {PLAIN} or {WITH_REGISTERS}, alone or as a backbone, got {model_type:?}{with}"
    ))
}

/// Every nested object that is the configuration of a model.
fn collect<'a>(config: Fields<'a>, depth: usize, found: &mut Vec<Fields<'a>>) {
    for nested in config.0.values().filter_map(Value::as_object).map(Fields) {
        if nested.text("model_type").is_some() {
            found.push(nested);
        }
        if depth > 1 {
            collect(nested, depth - 1, found);
        }
    }
}

fn convention(registers: bool) -> PositionConvention {
    if registers { PositionConvention::ExactSizeAntialias } else { PositionConvention::ExactSize }
}

/// The configuration of DINOv2 itself. That of a backbone also selects blocks and whether their outputs are normed, which
/// does not change the tokens.
fn of_backbone(config: Fields<'_>) -> Result<Hints, String> {
    let (convention, registers) = match config.text("model_type") {
        Some(PLAIN) => (Some(convention(false)), Some(0)),
        Some(_) => (Some(convention(true)), config.count("num_register_tokens")?),
        None => (None, None),
    };
    let swiglu = config.flag("use_swiglu_ffn")? == Some(true);
    match config.value("hidden_act") {
        Some(other) if other.as_str() != Some("gelu") && !swiglu => {
            return Err(format!("hidden_act: expected gelu, got {}", shown(other)));
        }
        _ => {}
    }
    if let Some(channels) = config.count("num_channels")?.filter(|&channels| channels != 3) {
        return Err(format!("num_channels: expected 3, got {channels}"));
    }
    let patch_size = config.size("patch_size")?;
    if let Some(patch) = patch_size.filter(|patch| patch.height_px != patch.width_px) {
        return Err(format!("patch_size: expected a square, got {patch}"));
    }
    let stated = [
        (StatedNumber::Dim, config.count("hidden_size")?),
        (StatedNumber::Depth, config.count("num_hidden_layers")?),
        (StatedNumber::PatchSize, patch_size.and_then(|patch| usize::try_from(patch.width_px).ok())),
        (StatedNumber::Registers, registers),
    ];
    Ok(Hints {
        heads: config.count("num_attention_heads")?,
        norm_eps: config.number("layer_norm_eps")?.map(|epsilon| epsilon as f32),
        convention,
        stated: stated.into_iter().filter_map(|(field, value)| Some((field, value?))).collect(),
        image_size: config.size("image_size")?.map(|size| StatedSize { field: "image_size", size }),
        ..Hints::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::PixelSize;

    fn parse(json: &str) -> Result<Hints, String> {
        hints(Fields(&serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn dinov2_alone() {
        let plain = parse(
            r#"{"model_type":"dinov2","hidden_size":64,"num_attention_heads":2,"patch_size":[14,14],
            "image_size":[42,56],"hidden_act":"gelu","quantization_config":null}"#,
        );
        let plain = plain.unwrap();
        assert_eq!((plain.heads, plain.convention), (Some(2), Some(PositionConvention::ExactSize)));
        assert_eq!(
            plain.stated,
            [(StatedNumber::Dim, 64), (StatedNumber::PatchSize, 14), (StatedNumber::Registers, 0)]
        );
        assert_eq!(plain.image_size.unwrap().size, PixelSize { height_px: 42, width_px: 56 });
        for (json, told) in [
            (r#"{"model_type":"dinov2","hidden_act":"relu"}"#, "hidden_act: expected gelu, got \"relu\""),
            (r#"{"model_type":"dinov2","num_channels":4}"#, "num_channels: expected 3, got 4"),
            (r#"{"model_type":"dinov2","patch_size":[14,16]}"#, "patch_size: expected a square, got 16x14"),
            (r#"{"model_type":"dinov2","hidden_size":"64"}"#, "hidden_size: expected a count, got \"64\""),
            (
                r#"{"model_type":"dinov2","quantization_config":{"quant_method":"gptq"}}"#,
                "quantization_config: expected weights in f32, f16 or bf16, got quantization by \"gptq\"",
            ),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn dinov2_within_a_larger_model() {
        let inner = r#"{"model_type":"dinov2","num_attention_heads":6,"hidden_size":384}"#;
        for json in [
            format!(r#"{{"model_type":"depth_anything","backbone_config":{inner}}}"#),
            // DPT has numbers of its own beside those of its backbone.
            format!(
                r#"{{"model_type":"dpt","hidden_size":768,"num_attention_heads":12,"backbone_config":{inner}}}"#
            ),
            format!(r#"{{"model_type":"a","vision_config":{{"model_type":"b","backbone_config":{inner}}}}}"#),
            format!(
                r#"{{"model_type":"vision-encoder-decoder","encoder":{inner},"decoder":{{"model_type":"gpt2"}}}}"#
            ),
            format!(
                r#"{{"model_type":"depth_pro","image_model_config":{inner},"fov_model_config":{inner}}}"#
            ),
        ] {
            let hints = parse(&json).unwrap();
            assert_eq!(
                (hints.heads, hints.convention),
                (Some(6), Some(PositionConvention::ExactSize)),
                "{json}"
            );
        }
        let named =
            parse(r#"{"model_type":"dpt","backbone":"facebook/dinov2-with-registers-small"}"#).unwrap();
        assert_eq!(named.convention, Some(PositionConvention::ExactSizeAntialias));
        for (json, told) in [
            (r#"{"model_type":"vit"}"#, "alone or as a backbone, got \"vit\""),
            (
                r#"{"model_type":"upernet","hidden_size":8,"backbone_config":{"model_type":"swin"}}"#,
                "got \"upernet\" of swin",
            ),
            (
                r#"{"model_type":"dpt","backbone":"microsoft/beit"}"#,
                "got \"dpt\" with the backbone \"microsoft/beit\"",
            ),
            (
                r#"{"model_type":"x","a":{"model_type":"dinov2","hidden_size":1},"b":{"model_type":"dinov2"}}"#,
                "expected one DINOv2 backbone, got several that differ",
            ),
            (
                r#"{"model_type":"dpt","quantization_config":{},"backbone_config":{"model_type":"dinov2"}}"#,
                "got quantization by \"unknown\"",
            ),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
