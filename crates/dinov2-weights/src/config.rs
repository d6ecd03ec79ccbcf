//! What the JSON files beside a checkpoint say: `config.json` of Hugging Face or timm, `preprocessor_config.json`.
//!
//! Only what the tensors cannot tell, or what must agree with them, is read; the rest is ignored.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use dinov2_core::PositionConvention;
use serde::Deserialize;

use crate::ConvertError;
use crate::checkpoint::{Hints, Stated};
use crate::metadata::Normalisation;

/// Longest configuration file.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// One number, or one per side.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sides {
    One(usize),
    Each(Vec<usize>),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    model_type: Option<String>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_register_tokens: Option<usize>,
    patch_size: Option<Sides>,
    num_channels: Option<usize>,
    layer_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    use_swiglu_ffn: bool,
    backbone_config: Option<Box<Config>>,
    architecture: Option<String>,
    num_features: Option<usize>,
    pretrained_cfg: TimmPretrained,
    model_args: TimmArguments,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TimmPretrained {
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    license: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TimmArguments {
    num_heads: Option<usize>,
}

#[derive(Deserialize)]
struct Preprocessor {
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

/// Reads the configuration files of a folder, as far as they are there.
///
/// # Errors
/// A file that is no JSON of the expected form, or that describes another kind of model.
pub(crate) fn hints_of_folder(folder: &Path) -> Result<Hints, ConvertError> {
    let path = folder.join("config.json");
    let mut hints = match read_json::<Config>(&path)? {
        Some(config) => hints_of(config).map_err(|problem| ConvertError::invalid(problem, label(&path)))?,
        None => Hints::default(),
    };
    let path = folder.join("preprocessor_config.json");
    if let Some(Preprocessor { image_mean: Some(mean), image_std: Some(std) }) = read_json(&path)? {
        let normalisation = Normalisation { mean, std };
        normalisation.check().map_err(|problem| ConvertError::invalid(problem, label(&path)))?;
        hints.normalisation = Some(normalisation);
    }
    Ok(hints)
}

fn label(path: &Path) -> String {
    path.display().to_string()
}

/// Parses a JSON file; `None` where there is no file.
pub(crate) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, ConvertError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|source| ConvertError::io("open", path, source))?,
    };
    let mut text = Vec::new();
    let read = file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut text);
    read.map_err(|source| ConvertError::io("read", path, source))?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        let problem = format!("configuration: expected at most {MAX_CONFIG_BYTES} bytes, got more");
        return Err(ConvertError::invalid(problem, label(path)));
    }
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|error| ConvertError::invalid(format!("configuration: {error}"), label(path)))
}

fn hints_of(config: Config) -> Result<Hints, String> {
    if config.architecture.is_some() {
        return timm_hints(config);
    }
    match config.backbone_config {
        Some(backbone) if config.hidden_size.is_none() => hugging_face_hints(*backbone),
        _ => hugging_face_hints(config),
    }
}

fn timm_hints(config: Config) -> Result<Hints, String> {
    let normalisation = match (config.pretrained_cfg.mean, config.pretrained_cfg.std) {
        (Some(mean), Some(std)) => Some(Normalisation { mean, std }),
        _ => None,
    };
    if let Some(normalisation) = normalisation {
        normalisation.check()?;
    }
    Ok(Hints {
        timm: true,
        heads: config.model_args.num_heads,
        convention: Some(PositionConvention::ExactSizeAntialias),
        stated: config.num_features.map(|dim| (Stated::Dim, dim)).into_iter().collect(),
        normalisation,
        licence: config.pretrained_cfg.license,
        ..Hints::default()
    })
}

fn hugging_face_hints(config: Config) -> Result<Hints, String> {
    let (convention, registers) = match config.model_type.as_deref() {
        None => (None, None),
        Some("dinov2") => (Some(PositionConvention::ExactSize), Some(0)),
        Some("dinov2_with_registers") => {
            (Some(PositionConvention::ExactSizeAntialias), config.num_register_tokens)
        }
        Some(other) => {
            return Err(format!("model_type: expected dinov2 or dinov2_with_registers, got {other:?}"));
        }
    };
    match config.hidden_act.as_deref() {
        Some(other) if other != "gelu" && !config.use_swiglu_ffn => {
            return Err(format!("hidden_act: expected gelu, got {other:?}"));
        }
        _ => {}
    }
    if let Some(channels) = config.num_channels.filter(|&channels| channels != 3) {
        return Err(format!("num_channels: expected 3, got {channels}"));
    }
    let patch_size = match config.patch_size {
        Some(Sides::Each(sides)) if sides.iter().any(|side| *side != sides[0]) => {
            return Err(format!("patch_size: expected a square, got {sides:?}"));
        }
        Some(Sides::Each(sides)) => sides.first().copied(),
        Some(Sides::One(side)) => Some(side),
        None => None,
    };
    let stated = [
        (Stated::Dim, config.hidden_size),
        (Stated::Depth, config.num_hidden_layers),
        (Stated::PatchSize, patch_size),
        (Stated::Registers, registers),
    ];
    Ok(Hints {
        heads: config.num_attention_heads,
        norm_eps: config.layer_norm_eps,
        convention,
        stated: stated.into_iter().filter_map(|(field, value)| Some((field, value?))).collect(),
        ..Hints::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Hints, String> {
        hints_of(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn kinds_are_told_apart() {
        let plain =
            parse(r#"{"model_type":"dinov2","hidden_size":64,"num_attention_heads":2,"patch_size":[14,14]}"#);
        let plain = plain.unwrap();
        assert_eq!((plain.heads, plain.convention), (Some(2), Some(PositionConvention::ExactSize)));
        assert_eq!(plain.stated, [(Stated::Dim, 64), (Stated::PatchSize, 14), (Stated::Registers, 0)]);
        let timm = parse(
            r#"{"architecture":"vit_small_patch14_dinov2","num_features":384,"pretrained_cfg":{"license":"x"}}"#,
        );
        let timm = timm.unwrap();
        assert!(timm.timm && timm.licence.as_deref() == Some("x"));
        let nested = parse(
            r#"{"model_type":"depth_anything","backbone_config":{"model_type":"dinov2","num_attention_heads":6}}"#,
        );
        assert_eq!(nested.unwrap().heads, Some(6));
        for (json, told) in [
            (r#"{"model_type":"vit"}"#, "model_type"),
            (r#"{"model_type":"dinov2","hidden_act":"relu"}"#, "hidden_act"),
            (r#"{"model_type":"dinov2","num_channels":4}"#, "num_channels"),
            (r#"{"model_type":"dinov2","patch_size":[14,16]}"#, "patch_size"),
        ] {
            assert!(parse(json).unwrap_err().contains(told), "{json}");
        }
    }
}
