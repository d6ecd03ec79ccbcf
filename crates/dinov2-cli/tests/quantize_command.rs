//! `dinov2-edge quantize` as its users call it.

mod common;

use std::path::{Path, PathBuf};

use common::{fails, files, media, succeeds};
use serde_json::Value;

/// A small model with random weights, in f32.
fn small_model(folder: &Path) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden/hf_registers");
    let path = folder.join("small.safetensors").to_string_lossy().into_owned();
    succeeds(&["convert", &source.to_string_lossy(), "-o", &path]);
    path
}

#[test]
fn a_quantized_model_says_how_true_it_is_and_runs_in_int8() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path());
    let quantized = folder.path().join("int8.safetensors").to_string_lossy().into_owned();
    let clip = media("cat.mjpeg");
    let words = ["quantize", "--model", &model, "--calibration", &clip, "--images", "6", "--sizes", "70,98"];
    let report = succeeds(&[&words[..], &["-o", &quantized, "--json"]].concat());
    let report: Value = serde_json::from_str(report.trim()).unwrap();
    let matrices = report["matrices"].as_array().unwrap();
    let mean = |key: &str| matrices.iter().map(|matrix| matrix[key].as_f64().unwrap()).sum::<f64>();
    assert!(mean("output_error") < mean("nearest_error"), "{report}");

    // What the file claims is what `compare` finds on the frames that were held out, here all there are.
    let compared = succeeds(&[
        "compare",
        &clip,
        "--reference",
        &format!("{model}:cpu:f32"),
        "--candidate",
        &format!("{quantized}:cpu:int8"),
        "--size",
        "70",
        "--json",
    ]);
    let compared: Value = serde_json::from_str(compared.trim()).unwrap();
    let claimed = report["quantisation"]["fidelity"][0]["median"].as_f64().unwrap();
    let found = compared["patch_cosine"]["median"].as_f64().unwrap();
    assert!(claimed > 0.999 && (claimed - found).abs() < 3e-4, "{claimed} {found}");

    let doctor: Value =
        serde_json::from_str(succeeds(&["doctor", "--model", &quantized, "--json"]).trim()).unwrap();
    assert!(doctor["engine"].as_str().unwrap().starts_with("cpu int8"), "{doctor}");
    assert!(doctor["reason"].as_str().unwrap().contains("meets its gate"), "{doctor}");
    let doctor: Value =
        serde_json::from_str(succeeds(&["doctor", "--model", &model, "--json"]).trim()).unwrap();
    assert!(doctor["engine"].as_str().unwrap().starts_with("cpu f32"), "{doctor}");
}

#[test]
fn int4_halves_the_file_and_runs_in_int8() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path());
    let clip = media("cat.mjpeg");
    let quantized = |name: &str, rest: &[&str]| -> (String, Value) {
        let path = folder.path().join(name).to_string_lossy().into_owned();
        let words = ["quantize", "--model", &model, "--calibration", &clip, "--images", "6", "--sizes", "70"];
        let report = succeeds(&[&words[..], &["-o", &path, "--json"], rest].concat());
        (path, serde_json::from_str(report.trim()).unwrap())
    };
    let int4 = ["--precision", "int4", "--group", "32", "--int8-share", "0.3"];
    let (path, report) = quantized("int4.safetensors", &int4);
    let matrices = report["matrices"].as_array().unwrap();
    let weights = |bits: u64| {
        let of_bits = matrices.iter().filter(|matrix| matrix["bits"].as_u64() == Some(bits));
        of_bits.map(|matrix| matrix["weights"].as_u64().unwrap()).sum::<u64>() as f64
    };
    let share = weights(8) / (weights(4) + weights(8));
    assert!(share > 0.1 && share <= 0.3, "{share}");
    for matrix in matrices {
        let error = |key: &str| matrix[key].as_f64();
        assert_eq!(error("int4_error").is_some(), matrix["bits"] == 8, "{matrix}");
        assert!(
            error("int4_error").is_none_or(|int4| int4 > 2.0 * error("output_error").unwrap()),
            "{matrix}"
        );
    }

    let (wide, wide_report) = quantized("int8.safetensors", &[]);
    let bytes = |path: &str| std::fs::metadata(path).unwrap().len() as f64;
    assert!(bytes(&path) < 0.9 * bytes(&wide), "{} {}", bytes(&path), bytes(&wide));
    let median = |report: &Value| report["quantisation"]["fidelity"][0]["median"].as_f64().unwrap();
    assert!(median(&report) > 0.98 && median(&report) < median(&wide_report), "{report}");

    let doctor: Value =
        serde_json::from_str(succeeds(&["doctor", "--model", &path, "--json"]).trim()).unwrap();
    assert!(doctor["engine"].as_str().unwrap().starts_with("cpu int8"), "{doctor}");
    let reason = doctor["reason"].as_str().unwrap();
    assert!(reason.contains("int8 with int4 weights meets its gate"), "{doctor}");
    let shown = succeeds(&["inspect", &path]);
    assert!(shown.contains("int4 weights in groups of 32") && shown.contains("patch cosine"), "{shown}");

    // What the file claims is what `compare` finds on the frames that were held out, here all there are.
    let reference = format!("{model}:cpu:f32");
    let candidate = format!("{path}:cpu:int8");
    let words = ["--reference", &reference, "--candidate", &candidate, "--size", "70", "--json"];
    let compared: Value =
        serde_json::from_str(succeeds(&[&["compare", &clip], &words[..]].concat()).trim()).unwrap();
    let found = compared["patch_cosine"]["median"].as_f64().unwrap();
    assert!((median(&report) - found).abs() < 5e-3, "{} {found}", median(&report));

    let cat = media("cat.jpg");
    let output = folder.path().join("x.safetensors").to_string_lossy().into_owned();
    fails(&["convert", &model, "-o", &output, "--storage", "int4"], 2, "quantize --precision int4");
    fails(&["quantize", "--model", &path, "--calibration", "nowhere", "-o", &output], 1, "bf16, got int4");
    succeeds(&[
        "run",
        "--model",
        &path,
        "--input",
        &cat,
        "--size",
        "70",
        "--precision",
        "f32",
        "-o",
        &output,
    ]);
}

#[test]
fn mistakes_with_quantize_are_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path());
    let output = folder.path().join("int8.safetensors").to_string_lossy().into_owned();
    let (clip, cat) = (media("cat.mjpeg"), media("cat.jpg"));
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/vits14-focus-int8.safetensors");
    let bundled = bundled.to_string_lossy();
    let with = |model: &str, images: &str, rest: &[&str], code, told: &str| {
        let words = ["quantize", "--model", model, "--calibration", images, "-o", &output];
        fails(&[&words[..], rest].concat(), code, told);
    };
    with(&bundled, &clip, &["--images", "6"], 1, "expected a model in f32, f16 or bf16, got int8");
    with(&model, &cat, &[], 1, "calibration: expected at least 4 images, got 1");
    with(&model, "no-such-folder", &[], 1, "no-such-folder");
    with(&model, &clip, &["--images", "2"], 2, "expected at least 4");
    with(&bundled, "no-such-folder", &[], 1, "expected a model in f32, f16 or bf16, got int8");
    for wrong in
        ["0", "", "224,", ",224", "224,0", "224,224", "224x224", "native", "-1", "99999999999999999999"]
    {
        with(&model, &clip, &[&format!("--sizes={wrong}")], 2, "expected short sides in pixels");
    }
    with(&model, &clip, &["--group", "32"], 2, "expected --precision int4, got int8");
    with(&model, &clip, &["--precision", "int4", "--group", "48"], 2, "expected 32 or 64");
    with(
        &model,
        &clip,
        &["--precision", "int4", "--int8-share", "1.5"],
        2,
        "expected a number from 0 to 1, got \"1.5\"",
    );
    with(&model, &clip, &["--precision", "int3"], 2, "expected int8 or int4");
    let nowhere = folder.path().join("missing/int8.safetensors").to_string_lossy().into_owned();
    let words = ["quantize", "--model", &model, "--calibration", "no-such-folder", "-o", &nowhere];
    fails(&words, 2, "--output: expected a file in a folder that exists");
    with("no-such-model", &clip, &[], 1, "no-such-model");
    assert_eq!(files(folder.path()), [PathBuf::from(&model)]);
    let onnx = ["run", "--input", &cat, "--precision", "int8", "--backend", "onnx"];
    fails(&onnx, 1, "precision: expected auto or f32 for backend onnx");
}
