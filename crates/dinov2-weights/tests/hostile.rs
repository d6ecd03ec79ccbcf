//! Files that are cut, bent or malicious give one clear line and never a panic.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dinov2_files::chain;
use dinov2_weights::infer::{Overrides, infer};
use dinov2_weights::naming::canonical;
use dinov2_weights::quantize::round_to_nearest_int4;
use dinov2_weights::{
    ConvertError, ConvertOptions, Model, Numbers, Quantization, Storage, StoredDtype, checkpoint_from_bytes,
    convert, fits_int4, layout, read_checkpoint, write_quantized,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The error of converting these bytes, as a user reads it. No output may be left behind.
fn refusal(bytes: &[u8], heads: Option<usize>) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    std::fs::write(&input, bytes).unwrap();
    let options = ConvertOptions { heads, ..ConvertOptions::new(Storage::F32) };
    let told = chain(&convert(&input, &folder.path().join("output"), &options, &mut |_| {}).err()?);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{told}");
    assert!(!told.contains('\n') && told.len() < 600, "{told}");
    Some(told)
}

/// Reads as far as [`convert`] does before it reads weights, from memory.
fn understand(bytes: Bytes, heads: Option<usize>) -> Result<(), String> {
    let checkpoint = checkpoint_from_bytes(bytes, "m").map_err(|error| chain(&error))?;
    let mut backbone = canonical(&checkpoint)?;
    let overrides = Overrides { heads, convention: None };
    infer(&checkpoint, &mut backbone, overrides).map(drop).map_err(|error| chain(&error))
}

#[test]
fn a_cut_file_is_refused_wherever_it_is_cut() {
    for (name, heads) in
        [("official.pth", Some(3)), ("timm.safetensors", None), ("tiny_before_1_6.pth", Some(1))]
    {
        let bytes = Bytes::from(std::fs::read(fixture(name)).unwrap());
        assert_eq!(understand(bytes.clone(), heads), Ok(()));
        for cut in 0..bytes.len() {
            assert!(understand(bytes.slice(..cut), heads).is_err(), "{name} cut at {cut}");
        }
        assert!(refusal(&bytes[..bytes.len() - 1], heads).is_some());
    }
}

#[test]
fn a_cut_model_file_is_refused_wherever_it_is_cut() {
    let bytes = model_file();
    Model::from_bytes(bytes.clone(), "m").unwrap();
    for cut in 0..bytes.len() {
        let told = Model::from_bytes(bytes[..cut].to_vec(), "m").unwrap_err().to_string();
        assert!(told.ends_with("in m") && !told.contains('\n'), "{told}");
    }
}

fn model_file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    convert(&fixture("timm.safetensors"), &path, &ConvertOptions::new(Storage::Int8), &mut |_| {}).unwrap();
    std::fs::read(path).unwrap()
}

/// An int4 file in groups of 32 and its model before: every matrix of whole groups is int4 but `stays_int8`.
fn int4_file(stays_int8: &str) -> (Vec<u8>, BTreeMap<String, Numbers>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    convert(&fixture("timm.safetensors"), &path, &ConvertOptions::new(Storage::F32), &mut |_| {}).unwrap();
    let model = Model::open(&path).unwrap();
    let fitting = layout::slots(model.spec())
        .into_iter()
        .filter(|slot| slot.matrix && fits_int4(&slot.shape, 32) && !slot.name.contains(stays_int8));
    let replacements = fitting.map(|slot| {
        let groups = round_to_nearest_int4(&model.f32(&slot.name).unwrap(), &vec![1.0; slot.shape[1]], 32);
        (slot.name, Numbers::Int4(groups))
    });
    let replacements: BTreeMap<_, _> = replacements.collect();
    let quantization = Quantization {
        weight_limit: 64,
        int4_group: Some(32),
        calibration_images: 4,
        trained: false,
        fidelity: Vec::new(),
    };
    write_quantized(&model, &replacements, quantization, &path).unwrap();
    (std::fs::read(path).unwrap(), replacements)
}

/// Range of a tensor's bytes.
fn range(bytes: &[u8], name: &str) -> Range<usize> {
    let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data();
    let start = data.as_ptr() as usize - bytes.as_ptr() as usize;
    start..start + data.len()
}

#[test]
fn int4_comes_back_from_a_file_and_is_widened_within_half_a_step() {
    let (bytes, replacements) = int4_file("mlp.fc2");
    let model = Model::from_bytes(bytes, "m").unwrap();
    assert_eq!(replacements.len(), 3);
    for (name, replacement) in &replacements {
        let Numbers::Int4(groups) = replacement else { panic!("{name}") };
        assert_eq!(model.tensor(name).unwrap().dtype, StoredDtype::Int4 { group: 32 });
        let exact = model.f32(name).unwrap();
        assert_eq!(exact, groups.to_f32());
        let rows = model.int8(name).unwrap();
        assert!(rows.values.iter().all(|value| value.unsigned_abs() <= 64));
        let k = model.tensor(name).unwrap().shape[1];
        for (at, (exact, got)) in exact.iter().zip(rows.to_f32()).enumerate() {
            let step = rows.scale[at / k];
            assert!((exact - got).abs() <= 0.50001 * step, "{name} {at}: {exact} {got} {step}");
        }
    }
    for name in ["blocks.0.mlp.fc2.weight", "patch_embed.proj.weight"] {
        assert_eq!(model.tensor(name).unwrap().dtype, StoredDtype::I8, "{name}");
    }
    let text = dinov2_weights::inspect(&model);
    assert!(text.contains("int4 weights in groups of 32, 2 of 5 matrices int8"), "{text}");
}

#[test]
fn an_int4_file_that_contradicts_itself_is_refused() {
    let (bytes, _) = int4_file("nothing");
    let qkv = "tensor \"blocks.0.attn.qkv.weight";
    for (from, to, told) in [
        (
            r#"\"int4_group\":32"#,
            r#"\"int4_group\":64"#,
            r#".scale": expected F16 [192, 1], got F16 [192, 2]"#,
        ),
        (r#"\"int4_group\":32"#, r#"\"int4_group\":48"#, "int4_group: expected 32 or 64, got 48"),
        (r#"\"int4_group\":32"#, r#"\"int4_grOup\":32"#, "unknown field `int4_grOup`"),
        (r#"\"storage\":\"int4\""#, r#"\"storage\":\"int8\""#, "expected none with storage int8, got 32"),
        (r#"\"weight_limit\":64"#, r#"\"weight_limit\":00"#, "metadata"),
        ("attn.qkv.weight.scale", "attn.qkv.weight.scald", r#".scale": expected F16 [192, 2], got nothing"#),
        ("attn.qkv.weight.zero", "attn.qkv.weight.zerO", r#".zero": expected U8 [192, 2], got nothing"#),
        (
            r#"qkv.weight":{"dtype":"U8","shape":[192,32]"#,
            r#"qkv.weight":{"dtype":"U8","shape":[32,192]"#,
            "expected U8 [192, 32], got U8 [32, 192]",
        ),
        (
            r#"qkv.weight":{"dtype":"U8","#,
            r#"qkv.weight":{"dtype":"I8","#,
            "expected I8 [192, 64], got I8 [192, 32]",
        ),
        (
            r#"proj.weight":{"dtype":"I8","#,
            r#"proj.weight":{"dtype":"U8","#,
            "expected I8 [64, 3, 2, 2], got U8",
        ),
    ] {
        let error = Model::from_bytes(bent(&bytes, from, to), "m").unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains('\n'), "{error}");
    }
    let scale = range(&bytes, "blocks.0.attn.qkv.weight.scale").start;
    for wrong in [half::f16::NAN, half::f16::NEG_ONE, half::f16::INFINITY] {
        let mut bent = bytes.clone();
        bent[scale + 6..scale + 8].copy_from_slice(&wrong.to_le_bytes());
        let error = Model::from_bytes(bent, "m").unwrap_err().to_string();
        let told = format!("{qkv}.scale\": expected finite scales of at least 0, got {wrong} at index 3");
        assert!(error.starts_with(&told), "{error}");
    }
    let mut bent = bytes.clone();
    bent[range(&bytes, "blocks.0.attn.qkv.weight.zero").start + 5] = 16;
    let error = Model::from_bytes(bent, "m").unwrap_err().to_string();
    let told = format!("{qkv}.zero\": expected zero points of at most 15, got 16 at index 5");
    assert!(error.starts_with(&told), "{error}");
    for cut in (0..bytes.len()).step_by(97) {
        assert!(Model::from_bytes(bytes[..cut].to_vec(), "m").is_err(), "cut at {cut}");
    }
}

#[test]
fn nothing_is_converted_to_int4_but_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("input"), folder.path().join("output"));
    let advice =
        "expected f32, f16, bf16 or int8, got int4 (dinov2-edge quantize --precision int4 writes it)";
    let told =
        convert(&fixture("timm.safetensors"), &output, &ConvertOptions::new(Storage::Int4), &mut |_| {});
    assert!(told.unwrap_err().to_string().contains(advice));
    assert!("int4".parse::<Storage>().unwrap_err().contains(advice));
    assert!(!output.exists());
    let (bytes, _) = int4_file("nothing");
    std::fs::write(&input, &bytes).unwrap();
    convert(&input, &output, &ConvertOptions::new(Storage::F32), &mut |_| {}).unwrap();
    let (small, wide) = (Model::open(&input).unwrap(), Model::open(&output).unwrap());
    assert_eq!(wide.metadata().quantization, None);
    for name in small.names() {
        assert_eq!(small.f32(name).unwrap(), wide.f32(name).unwrap(), "{name}");
    }
}

/// Bends bytes near both ends, where headers, pickles and directories are, in a fixed pseudo-random order. Some bent
/// files are still sound; none may panic or hang.
#[test]
fn bent_bytes_never_panic() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut refused = 0;
    for name in [
        "official.pth",
        "official_training.pth",
        "tiny_before_1_6.pth",
        "hugging_face/model.safetensors",
        "model",
        "int4 model",
    ] {
        let is_model = name.ends_with("model");
        let bytes = match name {
            "model" => model_file(),
            "int4 model" => int4_file("mlp.fc2").0,
            _ => std::fs::read(fixture(name)).unwrap(),
        };
        let structure = (bytes.len() / 4).min(6000);
        for _ in 0..4000 {
            let mut bent = bytes.clone();
            for _ in 0..=random() % 3 {
                let at = random() % structure;
                let at = if random() % 3 == 0 { bytes.len() - 1 - at } else { at };
                bent[at] = random() as u8;
            }
            refused += usize::from(match is_model {
                true => Model::from_bytes(bent, "m").map(|model| read_all(&model)).is_err(),
                false => understand(bent.into(), Some(1)).is_err(),
            });
        }
    }
    assert!(refused > 4000, "{refused}");
}

/// Reads a sound file as the engines do.
fn read_all(model: &Model) {
    for slot in layout::slots(model.spec()) {
        if slot.matrix && model.int8(&slot.name).is_ok() {
            assert_eq!(model.f32(&slot.name).unwrap().len(), slot.len());
        }
    }
}

/// Replaces one text of a header by another of the same length.
fn bent(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let mut bent = bytes.to_vec();
    bent[at..at + to.len()].copy_from_slice(to.as_bytes());
    bent
}

#[test]
fn a_model_file_that_contradicts_itself_is_refused() {
    let bytes = model_file();
    for (from, to, told) in [
        (r#"\"format_version\":1"#, r#"\"format_version\":7"#, "format_version: expected 1, got 7"),
        (
            r#"\"storage\":\"int8\""#,
            r#"\"storage\":\"bf16\""#,
            "expected BF16 [64, 3, 2, 2], got I8 [64, 3, 2, 2]",
        ),
        (
            r#"\"depth\":1"#,
            r#"\"depth\":2"#,
            "tensor \"blocks.1.norm1.weight\": expected F32 [64], got nothing",
        ),
        (
            r#"\"registers\":0"#,
            r#"\"registers\":3"#,
            "tensor \"register_tokens\": expected F32 [1, 3, 64], got nothing",
        ),
        (
            r#"\"dim\":64"#,
            r#"\"dim\":32"#,
            "tensor \"cls_token\": expected F32 [1, 1, 32], got F32 [1, 1, 64]",
        ),
        (r#""dinov2_edge""#, r#""dinov3_edge""#, "expected the key \"dinov2_edge\""),
        (r#""norm.bias""#, r#""norm.bios""#, "tensor \"norm.bias\": expected F32 [64], got nothing"),
        (
            r#""cls_token":{"dtype":"F32""#,
            r#""cls_token":{"dtype":"I32""#,
            "expected F32 [1, 1, 64], got I32",
        ),
    ] {
        let error = Model::from_bytes(bent(&bytes, from, to), "m").unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let scale = tensors.tensor("blocks.0.attn.qkv.weight.scale").unwrap().data();
    let at = scale.as_ptr() as usize - bytes.as_ptr() as usize;
    for wrong in [f32::NAN, -1.0, f32::INFINITY] {
        let mut bent = bytes.clone();
        bent[at + 4..at + 8].copy_from_slice(&wrong.to_le_bytes());
        let error = Model::from_bytes(bent, "m").unwrap_err().to_string();
        assert!(
            error.contains("expected finite scales of at least 0") && error.contains("at index 1"),
            "{error}"
        );
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name_and_place() {
    let bytes = std::fs::read(fixture("timm.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor("blocks.0.mlp.fc1.weight").unwrap().data();
    let at = data.as_ptr() as usize - bytes.as_ptr() as usize;
    for (wrong, told) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let mut bent = bytes.clone();
        bent[at + 28..at + 32].copy_from_slice(&wrong.to_le_bytes());
        let error = refusal(&bent, None).unwrap();
        let expected =
            format!("tensor \"blocks.0.mlp.fc1.weight\": expected finite weights, got {told} at index 7 in ");
        assert!(error.starts_with(&expected), "{error}");
    }
    let mut large = bytes.clone();
    large[at..at + 4].copy_from_slice(&1e6f32.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("large");
    std::fs::write(&input, large).unwrap();
    let halves = ConvertOptions::new(Storage::F16);
    let error = convert(&input, &folder.path().join("o"), &halves, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("expected weights within 65504 to store them as f16, got 1000000"), "{error}");
}

#[test]
fn what_is_no_backbone_is_told() {
    let timm = std::fs::read(fixture("timm.safetensors")).unwrap();
    for (bytes, told) in [
        (&b""[..], "expected safetensors, a .pth archive, ONNX or a folder of them, got 0 bytes"),
        (b"GIF89a..............", "beginning \"4749463839612e2e\""),
        (b"\x80\x02\x8a\x0al\xfc\x9cF", "save it again with torch.save"),
        (b"PK\x03\x04", "expected a central directory, got none"),
        (&bent(&timm, "patch_embed.proj.weight", "patch_embed.prej.weight"), "expected a DINOv2 backbone"),
        (&bent(&timm, "blocks.0.ls1.gamma", "blocks.0.ls1.gemma"), "expected only what a DINOv2 block has"),
        (
            &bent(&timm, "blocks.0.ls2.gamma", "blocks.3.ls2.gamma"),
            "tensor \"blocks.0.ls2.gamma\": expected [64], got nothing",
        ),
        (
            &bent(&timm, "\"norm.weight\"", "\"nurm.weight\""),
            "tensor \"norm.weight\": expected [64], got nothing",
        ),
        (
            &bent(&timm, "[1,10,64]", "[1,8,80] "),
            "tensor \"pos_embed\": expected [1, 1 + side * side, dim] of a square table",
        ),
    ] {
        let error = refusal(bytes, None).unwrap();
        assert!(error.contains(told), "{error}");
    }
    for (start, told) in [
        (&b"GGUF\x03\0\0\0"[..], "got GGUF, which holds quantized weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "got a pointer of git-lfs"),
        (b"\x1f\x8b\x08\0", "got a gzip archive"),
    ] {
        let error = refusal(start, None).unwrap();
        assert!(error.contains(told), "{error}");
    }
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let error = refusal(&tar, None).unwrap();
    assert!(error.contains("expected a file of torch.save, got a tar archive"), "{error}");
    let missing = read_checkpoint(Path::new("no-such-file.pth")).unwrap_err();
    assert!(matches!(missing, ConvertError::Io { action: "open", .. }), "{missing}");
    let empty = tempfile::tempdir().unwrap();
    let error = read_checkpoint(empty.path()).unwrap_err().to_string();
    assert!(
        error.contains("expected model.safetensors, model.safetensors.index.json or pytorch_model.bin"),
        "{error}"
    );
}

#[test]
fn archives_of_every_layout_are_read_or_told_apart() {
    let expected = std::fs::read(fixture("tiny.expected.safetensors")).unwrap();
    let expected = safetensors::SafeTensors::deserialize(&expected).unwrap();
    for name in ["tiny.pth", "tiny_zip64.pth", "tiny_with_code.pth", "tiny_before_1_6.pth"] {
        let checkpoint = read_checkpoint(&fixture(name)).unwrap();
        let backbone = canonical(&checkpoint).unwrap();
        assert_eq!(backbone.tensors.len(), expected.len());
        for (tensor, view) in expected.tensors() {
            let halves = view.data().as_chunks().0.iter();
            let values: Vec<f32> = halves.map(|half| half::f16::from_le_bytes(*half).to_f32()).collect();
            assert_eq!(backbone.tensors[&tensor].to_f32(), values, "{name} {tensor}");
        }
    }
    assert!(!Path::new("ran-code-from-a-checkpoint").exists());
    for (name, told) in [
        ("tiny_deflated.pth", "expected it stored as torch.save does, got compression method 8"),
        ("whole_module.pth", "(save model.state_dict()), got a torch.nn.modules.linear.Linear"),
    ] {
        let error = read_checkpoint(&fixture(name)).unwrap_err().to_string();
        assert!(error.contains(told) && error.ends_with(name), "{error}");
    }
}

/// `timm.safetensors` with one tensor's header entry bent.
fn timm_bent(from: &str, to: &str) -> String {
    let timm = std::fs::read(fixture("timm.safetensors")).unwrap();
    refusal(&bent(&timm, from, to), None).unwrap()
}

#[test]
fn weights_of_other_number_types_are_refused_for_their_type() {
    let fc1 = r#""blocks.0.mlp.fc1.weight":{"dtype":"F32","#;
    for dtype in ["I8 ", "U8 ", "I32", "F8_E4M3"] {
        let timm = std::fs::read(fixture("timm.safetensors")).unwrap();
        let text = String::from_utf8_lossy(&timm[8..]).into_owned();
        let end = text.find("}}").unwrap();
        assert!(text[..end].contains(fc1));
        let bytes = with_dtype(&timm, "blocks.0.mlp.fc1.weight", dtype.trim());
        let error = refusal(&bytes, None).unwrap();
        let told = format!(
            "tensor \"blocks.0.mlp.fc1.weight\": expected the number type f64, f32, f16 or bf16, got {}",
            dtype.trim()
        );
        assert!(error.starts_with(&told), "{error}");
    }
    let all = with_dtype(&std::fs::read(fixture("timm.safetensors")).unwrap(), "", "F8_E5M2");
    let error = refusal(&all, None).unwrap();
    assert!(error.contains("got F8_E5M2"), "{error}");
    let renamed = timm_bent("patch_embed.proj.weight", "patch_embed.proj.qweigh");
    assert!(renamed.contains("expected a DINOv2 backbone"), "{renamed}");
}

/// A safetensors file whose tensors with a name that contains `part` say that they are of `dtype`.
fn with_dtype(bytes: &[u8], part: &str, dtype: &str) -> Vec<u8> {
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    for (name, entry) in header.as_object_mut().unwrap() {
        if name.contains(part) && name != "__metadata__" {
            entry["dtype"] = dtype.into();
        }
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]].concat()
}
