//! Reads the JSON files beside a checkpoint: `config.json` of Hugging Face or timm, and the preprocessing in
//! `preprocessor_config.json` or `processor_config.json`.
//!
//! Only values that the tensors do not determine, or that must agree with them, are read. Unknown settings that change the
//! computation are errors that name the setting; all others are ignored.

mod fields;
mod hugging_face;
mod pixels;
mod timm;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ConvertError;
use crate::checkpoint::Hints;
use fields::Fields;

/// Longest configuration file.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
const CONFIG: &str = "config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";
const PROCESSOR: &str = "processor_config.json";

/// A file that is read beside a checkpoint's weights. Programs that copy or download checkpoints need it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideFile {
    /// Name in the folder of the weights.
    pub name: &'static str,
    /// Whether checkpoints without it are usual.
    pub optional: bool,
}

/// Every file that [`convert()`](crate::convert()) reads beside the weights of a folder.
pub const SIDE_FILES: [SideFile; 3] = [
    SideFile { name: CONFIG, optional: false },
    SideFile { name: PREPROCESSOR, optional: true },
    SideFile { name: PROCESSOR, optional: true },
];

/// The side files that lie in a folder.
pub(crate) fn side_files_in(folder: &Path) -> Vec<&'static str> {
    let there = SIDE_FILES.iter().filter(|file| folder.join(file.name).is_file());
    there.map(|file| file.name).collect()
}

/// Reads those configuration files of a folder that exist.
///
/// # Errors
/// If a file is not JSON of the expected form, describes another kind of model, or has unknown preprocessing.
pub(crate) fn hints_of_folder(folder: &Path) -> Result<Hints, ConvertError> {
    let path = folder.join(CONFIG);
    let hints = match read_object(&path)? {
        Some(config) => {
            hints_of(Fields(&config)).map_err(|problem| ConvertError::invalid(problem, label(&path)))?
        }
        None => Hints::default(),
    };
    with_preprocessing(folder, hints)
}

/// Adds what the preprocessing of a folder says to `hints`.
///
/// # Errors
/// As [`hints_of_folder`].
pub(crate) fn with_preprocessing(folder: &Path, mut hints: Hints) -> Result<Hints, ConvertError> {
    for name in [PROCESSOR, PREPROCESSOR] {
        let path = folder.join(name);
        let Some(processor) = read_object(&path)? else { continue };
        let processor = Fields(&processor);
        // Newer files nest it; an older processor_config.json says nothing of images.
        let processor = match processor.object("image_processor") {
            Some(nested) => nested,
            None if name == PROCESSOR => continue,
            None => processor,
        };
        let read = match processor.object("pretrained_cfg") {
            Some(pretrained) => timm::pixels(pretrained),
            None => pixels::pixels(processor),
        };
        let pixels = read.map_err(|problem| ConvertError::invalid(problem, label(&path)))?;
        if let (Some(first), Some(second)) = (hints.normalisation, pixels.normalisation)
            && first != second
        {
            let problem = format!(
                "mean and std: expected {:?} and {:?} as {CONFIG} says, got {:?} and {:?}",
                first.mean, first.std, second.mean, second.std
            );
            return Err(ConvertError::invalid(problem, label(&path)));
        }
        hints.normalisation = pixels.normalisation.or(hints.normalisation);
        hints.source_fit = pixels.fit.or(hints.source_fit);
        // As in transformers, the nested object takes precedence over the separate file.
        break;
    }
    Ok(hints)
}

fn hints_of(config: Fields<'_>) -> Result<Hints, String> {
    match config.text("architecture") {
        Some(_) => timm::hints(config),
        None => hugging_face::hints(config),
    }
}

fn label(path: &Path) -> String {
    path.display().to_string()
}

fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, ConvertError> {
    read_json(path)
}

/// Parses a JSON file; `None` where there is no file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ConvertError> {
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
    parsed.map(Some).map_err(|error| ConvertError::invalid(json_problem(&text, &error), label(path)))
}

/// Python writes NaN and Infinity into JSON, which has neither.
fn json_problem(text: &[u8], error: &serde_json::Error) -> String {
    let words = [&b"NaN"[..], b"Infinity"];
    let line = text.split(|&byte| byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let found = words.iter().find(|word| line.windows(word.len()).any(|window| window == **word));
    match found {
        Some(word) => {
            let word = String::from_utf8_lossy(word);
            format!("configuration: expected finite numbers, got {word} at line {}", error.line())
        }
        None => format!("configuration: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::metadata::{Interpolation, PixelSize, Resize, SourceFit};

    fn of(files: &[(&str, &str)]) -> Result<Hints, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        hints_of_folder(folder.path()).map_err(|error| error.to_string())
    }

    fn processed(text: &str) -> Result<Hints, String> {
        of(&[(PREPROCESSOR, text)])
    }

    #[test]
    fn steps_are_folded_into_mean_and_std_of_unit_pixels() {
        for (text, mean, std) in [
            (r#""image_mean":[0.1,0.2,0.3],"image_std":[0.5,0.6,0.7]"#, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]),
            (r#""image_mean":0.5,"image_std":0.25"#, [0.5; 3], [0.25; 3]),
            (r#""do_normalize":false,"image_mean":[9,9,9],"image_std":[0,0,0]"#, [0.0; 3], [1.0; 3]),
            (
                r#""do_rescale":false,"image_mean":[51,102,127.5],"image_std":[25.5,51,255]"#,
                [0.2, 0.4, 0.5],
                [0.1, 0.2, 1.0],
            ),
            (r#""do_rescale":false,"do_normalize":false"#, [0.0; 3], [1.0 / 255.0; 3]),
            (r#""rescale_factor":0.00784313725490196,"image_mean":1,"image_std":1"#, [0.5; 3], [0.5; 3]),
            (r#""do_rescale":null,"rescale_factor":null,"image_mean":0.1,"image_std":1"#, [0.1; 3], [1.0; 3]),
            (r#""image_processor_type":"ViTImageProcessorFast""#, [0.5; 3], [0.5; 3]),
            (
                r#""feature_extractor_type":"SegformerFeatureExtractor""#,
                [0.485, 0.456, 0.406],
                [0.229, 0.224, 0.225],
            ),
        ] {
            let got = processed(&format!("{{{text}}}")).unwrap().normalisation.unwrap();
            for (got, expected) in got.mean.iter().chain(&got.std).zip(mean.iter().chain(&std)) {
                assert!((got - expected).abs() <= 1e-7f32, "{text}: {got} {expected}");
            }
        }
    }

    #[test]
    fn what_is_not_affine_or_no_number_is_refused_by_name() {
        for (text, told) in [
            (r#""image_mean":[0.5],"image_std":[0.5]"#, "image_mean: expected three numbers, got [0.5]"),
            (r#""image_mean":[0.5,0.5,0.5],"image_std":[0.5,0,0.5]"#, "positive deviations, got"),
            (r#""image_mean":[0.5,0.5,0.5],"image_std":[0.5,-1,0.5]"#, "positive deviations, got"),
            ("\"image_mean\":[NaN,0.5,0.5]", "expected finite numbers, got NaN at line 1"),
            (r#""image_mean":[1e999,0.5,0.5]"#, "number out of range"),
            (r#""image_mean":["a",0.5,0.5]"#, "image_mean: expected three numbers"),
            (r#""do_normalize":"yes""#, "do_normalize: expected true or false, got \"yes\""),
            (
                r#""rescale_factor":0,"image_mean":0.5,"image_std":1"#,
                "rescale_factor: expected a positive number, got 0",
            ),
            (r#""do_flip_channel_order":true"#, "do_flip_channel_order: expected only what is folded"),
            (r#""do_color_quantize":true"#, "do_color_quantize: "),
            (r#""rescale_offset":true"#, "rescale_offset: "),
            (
                r#""image_processor_type":"NewImageProcessor""#,
                "image_mean: expected three numbers, or a known image_processor_type, got none for New",
            ),
            (
                "",
                "image_mean: expected three numbers, or a known image_processor_type, got none for no class",
            ),
        ] {
            let error = processed(&format!("{{{text}}}")).unwrap_err();
            assert!(error.contains(told) && error.ends_with(PREPROCESSOR), "{error}");
        }
    }

    #[test]
    fn size_crop_and_resampling_are_kept_for_the_record() {
        let fit = |text: &str| {
            processed(&format!(r#"{{"image_mean":0.5,"image_std":0.5,{text}}}"#)).unwrap().source_fit
        };
        let size = |height_px, width_px| PixelSize { height_px, width_px };
        let usual = fit(
            r#""resample":2,"size":{"shortest_edge":256},"do_center_crop":true,"crop_size":{"height":224,"width":196}"#,
        );
        let expected = SourceFit {
            interpolation: Some(Interpolation::Bilinear),
            resize: Some(Resize::ShortSide(256)),
            crop: Some(size(224, 196)),
        };
        assert_eq!(usual, Some(expected));
        assert_eq!(expected.to_string(), "short side 256, bilinear, centre crop 196x224");
        let exact = fit(r#""image_processor_type":"DPTImageProcessor","size":384,"crop_size":224"#).unwrap();
        assert_eq!((exact.resize, exact.crop), (Some(Resize::Exact(size(384, 384))), None));
        assert_eq!(fit(r#""do_resize":false,"resample":2,"size":9"#), None);
    }

    #[test]
    fn the_nested_processor_goes_first_and_contradictions_are_refused() {
        let nested = r#"{"image_processor":{"image_mean":0.1,"image_std":0.2},"tokenizer":{}}"#;
        let flat = r#"{"image_mean":0.5,"image_std":0.5}"#;
        let got = of(&[(PROCESSOR, nested), (PREPROCESSOR, flat)]).unwrap().normalisation.unwrap();
        assert_eq!(got.mean, [0.1; 3]);
        let got = of(&[(PROCESSOR, r#"{"num_tokens":3}"#), (PREPROCESSOR, flat)]).unwrap();
        assert_eq!(got.normalisation.unwrap().mean, [0.5; 3]);
        let timm = r#"{"architecture":"vit","pretrained_cfg":{"mean":[0.1,0.1,0.1],"std":[1,1,1]}}"#;
        let error = of(&[(CONFIG, timm), (PREPROCESSOR, flat)]).unwrap_err();
        assert!(error.contains("as config.json says, got [0.5, 0.5, 0.5]"), "{error}");
    }
}
