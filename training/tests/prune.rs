//! Cutting models down: what does not matter is found, and its absence is not noticed.

use std::path::Path;

use dinov2_core::{Extractor, Features, ImageView, Taps, VitSpec};
use dinov2_cpu::{CpuConfig, CpuEngine};
use dinov2_weights::{ConvertOptions, Model, Storage, convert, write_f32};
use training::data::Pixels;
use training::distil::{StudentCard, write_student};
use training::prune::prune;

const SIDE_PX: usize = 56;

/// A golden model with 3 blocks of dim 48 and 96 units, in which something is made useless.
fn model(folder: &Path, spoil: impl Fn(&str, &mut [f32])) -> Model {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/golden/hf_mlp");
    let whole = folder.join("whole.safetensors");
    convert(&source, &whole, &ConvertOptions::new(Storage::F32), &mut |_| {}).unwrap();
    let whole = Model::open(whole).unwrap();
    let path = folder.join("spoilt.safetensors");
    let mut tensor = |name: &str| {
        let mut numbers = whole.f32(name).ok()?;
        spoil(name, &mut numbers);
        Some(numbers)
    };
    write_f32(whole.metadata(), &mut tensor, &path).unwrap();
    Model::open(path).unwrap()
}

fn pixels() -> Pixels {
    let count = 6 * SIDE_PX * SIDE_PX * 3;
    let wave = |at: usize| 127.0 + 80.0 * (at as f32 * 0.013).sin() + 40.0 * (at as f32 * 0.31).cos();
    Pixels { side_px: SIDE_PX, data: (0..count).map(|at| wave(at) as u8).collect() }
}

/// The engine's tokens of the first image, before and after pruning to `spec`.
fn before_and_after(folder: &Path, model: &Model, spec: &VitSpec) -> (Vec<f32>, Vec<f32>) {
    let (parameters, kept) = prune(model, spec, &pixels(), &mut |_| {}).unwrap();
    let card = StudentCard {
        source: "a test".into(),
        licence: None,
        notes: String::new(),
        preprocessing: model.metadata().preprocessing,
    };
    let path = folder.join("pruned.safetensors");
    write_student(&kept.spec, &parameters, &card, &path).unwrap();
    let pruned = Model::open(path).unwrap();
    let tokens = |model: &Model| {
        let mut engine = CpuEngine::new(model, CpuConfig::default()).unwrap();
        let mut features = Features::new();
        let pixels = pixels();
        let image = pixels.images().next().unwrap();
        engine
            .extract(ImageView::new(image, SIDE_PX, SIDE_PX).unwrap(), &Taps::none(), &mut features)
            .unwrap();
        features.tokens().to_vec()
    };
    (tokens(model), tokens(&pruned))
}

fn assert_same(before: &[f32], after: &[f32]) {
    let largest = before.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(before.len() == after.len() && largest < 1e-4, "{largest}");
}

#[test]
fn a_block_that_does_nothing_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), |name, numbers| {
        if name.starts_with("blocks.1.") && name.ends_with(".gamma") {
            numbers.fill(0.0);
        }
    });
    let spec = VitSpec { depth: 2, ..model.spec().clone() };
    let (before, after) = before_and_after(folder.path(), &model, &spec);
    assert_same(&before, &after);
}

#[test]
fn units_that_nothing_reads_go_first() {
    let folder = tempfile::tempdir().unwrap();
    // Of every block another third, by stride.
    let model = model(folder.path(), |name, numbers| {
        for block in 0..3 {
            if name == format!("blocks.{block}.mlp.fc2.weight") {
                numbers.iter_mut().skip(block).step_by(3).for_each(|weight| *weight = 0.0);
            }
        }
    });
    let spec = VitSpec { mlp_hidden: 64, ..model.spec().clone() };
    let (before, after) = before_and_after(folder.path(), &model, &spec);
    assert_same(&before, &after);
}

#[test]
fn every_size_can_shrink_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), |_, _| {});
    let spec = VitSpec { depth: 2, dim: 32, heads: 2, mlp_hidden: 50, ..model.spec().clone() };
    let (before, after) = before_and_after(folder.path(), &model, &spec);
    assert_eq!(before.len() / 48, after.len() / 32);
    assert!(after.iter().all(|value| value.is_finite()));
}

#[test]
fn a_shape_that_is_no_part_of_the_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), |_, _| {});
    let source = model.spec().clone();
    for (spec, told) in [
        (VitSpec { depth: 4, ..source.clone() }, "depth: expected at most the model's 3, got 4"),
        (VitSpec { dim: 30, heads: 2, ..source.clone() }, "dim / heads: expected the model's 16, got 15"),
        (VitSpec { patch_size: 8, ..source.clone() }, "patch_size: expected the model's 14, got 8"),
    ] {
        let error = prune(&model, &spec, &pixels(), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
