//! Feature files read back by others' readers.

mod common;

use std::fs;
use std::path::Path;

use common::{bytes, difference};
use dinov2_core::{
    Facet, Features, HeadOutput, ImageView, MlpKind, PatchGrid, PositionConvention, Tap, Taps, VitSpec,
};
use dinov2_files::chain;
use dinov2_io::{FeatureMeta, Format, Frame, Output, SinkError, decode_still};
use safetensors::{Dtype, SafeTensors};

fn spec(dim: usize, registers: usize) -> VitSpec {
    VitSpec {
        dim,
        depth: 2,
        heads: 2,
        patch_size: 14,
        registers,
        mlp: MlpKind::Gelu,
        mlp_hidden: 4 * dim,
        layer_scale: true,
        norm_eps: 1e-6,
        position_table: PatchGrid { rows: 2, cols: 2 },
        position_convention: PositionConvention::ExactSize,
    }
}

/// A grid of 2 x 3 with tokens 0, 1, 2, … times `step` plus `start`, counted from the first patch.
fn features(dim: usize, registers: usize, taps: &Taps) -> Features {
    let mut features = Features::new();
    features.prepare(&spec(dim, registers), PatchGrid { rows: 2, cols: 3 }, taps);
    let patches_from = ((1 + registers) * dim) as f32;
    for (index, value) in features.tokens_mut().iter_mut().enumerate() {
        *value = (index as f32 - patches_from) / 7.0 - 1.0;
    }
    features
}

fn frame(name: &str) -> Frame {
    Frame {
        pixels: (0..42 * 28 * 3).map(|value| (value % 251) as u8).collect(),
        width_px: 42,
        height_px: 28,
        capture_ns: Some(40),
        captured: None,
        index: 7,
        name: name.into(),
        path: Some("photos/cat.jpg".into()),
    }
}

fn meta() -> FeatureMeta {
    FeatureMeta {
        model: "ViT-S/14".into(),
        model_file: "vits14.safetensors".into(),
        patch_size: 14,
        engine: "cpu".into(),
        precision: "f32".into(),
        extra: vec![("size".into(), "native".into())],
    }
}

fn write(output: &mut Output, frame: &Frame, features: &Features) -> Result<std::path::PathBuf, SinkError> {
    let colours = colours((0..18).map(|value| value * 14).collect());
    let outputs: &[_] = if output.format() == Format::Png { &[("pca", &colours)] } else { &[] };
    output.write(frame, frame.view(), features, outputs, &meta())
}

fn colours(rgb: Vec<u8>) -> HeadOutput {
    HeadOutput::Colours { grid: PatchGrid { rows: 2, cols: 3 }, rgb }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn safetensors_read_back_by_its_own_crate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    let taps = Taps::new([
        Tap::Layer { layer: 1, norm: true },
        Tap::Facet { layer: 0, facet: Facet::Key },
        Tap::ClsAttention,
    ]);
    let mut features = features(4, 1, &taps);
    features.tap_mut(Tap::ClsAttention).unwrap()[9] = 0.25;
    let written = write(&mut Output::from_path(&path, false).unwrap(), &frame("cat"), &features).unwrap();
    assert_eq!(written, path);

    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut shapes: Vec<(String, Vec<usize>)> =
        file.tensors().into_iter().map(|(name, tensor)| (name, tensor.shape().to_vec())).collect();
    shapes.sort();
    let expected = [
        ("cls", vec![4]),
        ("cls_attention", vec![2, 8]),
        ("layer0_key", vec![8, 4]),
        ("layer1_norm", vec![8, 4]),
        ("patches", vec![2, 3, 4]),
        ("registers", vec![1, 4]),
    ];
    assert_eq!(shapes, expected.map(|(name, shape)| (name.to_string(), shape)));
    for (name, values) in
        [("cls", features.cls()), ("registers", features.registers()), ("patches", features.patches())]
    {
        let tensor = file.tensor(name).unwrap();
        let expected: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!((tensor.dtype(), tensor.data()), (Dtype::F32, expected.as_slice()), "{name}");
    }
    assert_eq!(file.tensor("cls_attention").unwrap().data()[36..40], 0.25_f32.to_le_bytes());

    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let facts = metadata.metadata().as_ref().unwrap();
    for (key, value) in [
        ("source", "photos/cat.jpg"),
        ("frame_name", "cat"),
        ("frame_index", "7"),
        ("capture_ns", "40"),
        ("frame_size_px", "42x28"),
        ("image_size_px", "42x28"),
        ("grid", "2x3"),
        ("patch_size_px", "14"),
        ("model", "ViT-S/14"),
        ("model_file", "vits14.safetensors"),
        ("engine", "cpu"),
        ("precision", "f32"),
        ("size", "native"),
    ] {
        assert_eq!(facts.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[test]
fn safetensors_without_registers_or_taps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    let mut output = Output::from_path(&path, false).unwrap();
    write(&mut output, &frame("cat"), &features(4, 0, &Taps::none())).unwrap();
    let bytes = fs::read(&path).unwrap();
    let mut found: Vec<String> =
        SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(|name| name.to_string()).collect();
    found.sort();
    assert_eq!(found, ["cls", "patches"]);
}

#[test]
fn npy_as_numpy_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.npy");
    write(&mut Output::from_path(&path, false).unwrap(), &frame("cat"), &features(4, 1, &Taps::none()))
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes("patches.npy"));
}

#[test]
fn picture_has_the_image_left_and_the_view_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.png");
    let mut output = Output::from_path(&path, false).unwrap();
    assert_eq!(output.format(), Format::Png);
    let (frame, features) = (frame("cat"), features(4, 0, &Taps::none()));
    write(&mut output, &frame, &features).unwrap();
    let mut picture = Frame::new();
    decode_still(&fs::read(&path).unwrap(), &mut picture).unwrap();
    assert_eq!((picture.width_px, picture.height_px), (84, 28));
    let half = |right: usize| -> Vec<u8> {
        picture.pixels.chunks_exact(84 * 3).flat_map(|row| row[right * 126..][..126].to_vec()).collect()
    };
    assert_eq!(half(0), frame.pixels);
    // Corners of the enlarged view keep the colours of the corner patches.
    let right = half(1);
    for (at, patch) in [(0, 0), (41, 2), (27 * 42, 3), (27 * 42 + 41, 5)] {
        for channel in 0..3 {
            assert!(right[at * 3 + channel].abs_diff((patch * 3 + channel) as u8 * 14) < 25, "patch {patch}");
        }
    }

    let error = Output::from_path(&path, false).unwrap().write(&frame, frame.view(), &features, &[], &meta());
    assert!(matches!(error, Err(SinkError::NoPanel { .. })));
    assert_eq!(names(folder.path()), ["out.png"]);
}

#[test]
fn view_of_one_colour_stays_that_colour() {
    let folder = tempfile::tempdir().unwrap();
    let (frame, features) = (frame("cat"), features(4, 0, &Taps::none()));
    let mut output = Output::from_path(folder.path(), true).unwrap().with_folder_format(Format::Png);
    let view = colours([10, 20, 30].repeat(6));
    let path = output.write(&frame, frame.view(), &features, &[("pca", &view)], &meta()).unwrap();
    let mut picture = Frame::new();
    decode_still(&fs::read(path).unwrap(), &mut picture).unwrap();
    let right: Vec<u8> = picture.pixels.chunks_exact(252).flat_map(|row| row[126..].to_vec()).collect();
    let flat = [10, 20, 30].repeat(42 * 28);
    let view = |pixels| ImageView::new(pixels, 42, 28).unwrap();
    assert_eq!(difference(view(&right), view(&flat)).0, 0);
}

#[test]
fn a_folder_gets_a_file_per_frame_and_never_overwrites_one() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("features");
    let mut output = Output::from_path(&target, true).unwrap().with_folder_format(Format::Npy);
    assert!(!target.exists());
    let features = features(4, 0, &Taps::none());
    for name in ["cat", "clip_000000", "cat_2", "a/b"] {
        write(&mut output, &frame(name), &features).unwrap();
    }
    for name in ["cat", "CAT", "a_b"] {
        let error = write(&mut output, &frame(name), &features).unwrap_err();
        assert!(matches!(error, SinkError::SameName { .. }), "{error}");
    }
    assert_eq!(names(&target), ["a_b.npy", "cat.npy", "cat_2.npy", "clip_000000.npy", "index.jsonl"]);
    let index = fs::read_to_string(target.join("index.jsonl")).unwrap();
    let files: Vec<&str> = index.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
    assert_eq!(files, ["cat.npy", "clip_000000.npy", "cat_2.npy", "a_b.npy"]);
    assert!(index.lines().all(|line| line.contains(r#""source":"photos/cat.jpg""#)), "{index}");
}

#[test]
fn one_file_holds_one_frame() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.npy");
    assert!(matches!(Output::from_path(&path, true), Err(SinkError::OneFile { .. })));
    let mut output = Output::from_path(&path, false).unwrap();
    let features = features(4, 0, &Taps::none());
    write(&mut output, &frame("cat"), &features).unwrap();
    assert!(matches!(write(&mut output, &frame("dog"), &features), Err(SinkError::OneFile { .. })));
}

#[test]
fn unusable_outputs_are_named() {
    let error = chain(&Output::from_path("out.jpg", false).unwrap_err());
    assert_eq!(
        error,
        "output: expected a folder or a file ending in .safetensors, .npy or .png, got \"out.jpg\""
    );
    let error = Output::from_path("nowhere/out.npy", false).unwrap_err();
    assert_eq!(chain(&error), "cannot write nowhere: no such folder");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let mut output = Output::from_path(file.join("below/"), true).unwrap();
    let error = write(&mut output, &frame("cat"), &features(4, 0, &Taps::none())).unwrap_err();
    assert!(matches!(error, SinkError::Write { .. }), "{error}");
    // A folder of that name cannot be replaced; the temporary file goes away.
    let mut output = Output::from_path(folder.path().join("out.npy"), false).unwrap();
    fs::create_dir(folder.path().join("out.npy")).unwrap();
    assert!(write(&mut output, &frame("cat"), &features(4, 0, &Taps::none())).is_err());
    assert_eq!(names(folder.path()), ["file", "out.npy"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing() {
    // /dev/full refuses every write; as a folder it refuses the temporary file.
    let mut output = Output::from_path("/dev/full/", true).unwrap();
    let error = chain(&write(&mut output, &frame("cat"), &features(4, 0, &Taps::none())).unwrap_err());
    assert!(error.starts_with("cannot write /dev/full"), "{error}");
}

#[cfg(unix)]
#[test]
fn files_are_as_readable_as_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mut output = Output::from_path(folder.path().join("out.npy"), false).unwrap();
    let path = write(&mut output, &frame("cat"), &features(4, 0, &Taps::none())).unwrap();
    fs::write(folder.path().join("plain"), "x").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&folder.path().join("plain")));
}
