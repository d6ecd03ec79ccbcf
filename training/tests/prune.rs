//! Pruning: useless parts are found, and their removal does not change the output.

use std::path::Path;

use dinov2_core::{Extractor, Features, ImageView, PatchGrid, PositionConvention, Taps, VitSpec};
use dinov2_cpu::{CpuConfig, CpuEngine};
use dinov2_weights::position::resample;
use dinov2_weights::{ConvertOptions, Model, Numbers, Storage, convert, write_model};
use training::data::Pixels;
use training::distill::{StudentCard, write_student};
use training::prune::prune;

const SIDE_PX: usize = 56;

/// A golden model with 3 blocks of dim 48 and 96 units, changed by `spoil`.
fn model(folder: &Path, spoil: impl Fn(&str, &mut [f32])) -> Model {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/golden/hf_mlp");
    let whole = folder.join("whole.safetensors");
    convert(&source, &whole, &ConvertOptions::new(Storage::F32), &mut |_| {}).unwrap();
    let whole = Model::open(whole).unwrap();
    let path = folder.join("spoilt.safetensors");
    let mut tensor = |name: &str| {
        let mut numbers = whole.f32(name).ok()?;
        spoil(name, &mut numbers);
        Some(Numbers::F32(numbers))
    };
    write_model(whole.metadata(), &mut tensor, &path).unwrap();
    Model::open(path).unwrap()
}

fn pixels() -> Pixels {
    let count = 6 * SIDE_PX * SIDE_PX * 3;
    let wave = |at: usize| 127.0 + 80.0 * (at as f32 * 0.013).sin() + 40.0 * (at as f32 * 0.31).cos();
    Pixels { side_px: SIDE_PX, data: (0..count).map(|at| wave(at) as u8).collect() }
}

/// The engine's tokens of the first image, before and after pruning to `spec`.
fn before_and_after(folder: &Path, model: &Model, spec: &VitSpec) -> (Vec<f32>, Vec<f32>) {
    let pixels = pixels();
    let image = pixels.images().next().unwrap();
    (tokens(model, image, SIDE_PX), tokens(&pruned(folder, model, spec), image, SIDE_PX))
}

fn pruned(folder: &Path, model: &Model, spec: &VitSpec) -> Model {
    let (parameters, kept) = prune(model, spec, &pixels(), &mut |_| {}).unwrap();
    let card = StudentCard {
        source: "a test".into(),
        licence: None,
        notes: String::new(),
        preprocessing: model.metadata().preprocessing,
    };
    let path = folder.join("pruned.safetensors");
    write_student(&kept.spec, &parameters, &card, &path).unwrap();
    Model::open(path).unwrap()
}

/// The engine's tokens of a square image.
fn tokens(model: &Model, image: &[u8], side_px: usize) -> Vec<f32> {
    let mut engine = CpuEngine::new(model, CpuConfig::default()).unwrap();
    let mut features = Features::new();
    engine.extract(ImageView::new(image, side_px, side_px).unwrap(), &Taps::none(), &mut features).unwrap();
    features.tokens().to_vec()
}

/// The image with every patch of 14 pixels resized to `to` by itself.
fn with_patches_of(image: &[u8], to: usize) -> Vec<u8> {
    let (count, side) = (SIDE_PX / 14, SIDE_PX / 14 * to);
    let mut out = vec![0; side * side * 3];
    for patch in 0..count * count {
        let (top, left) = (patch / count, patch % count);
        // A position table begins with a token, which is not resampled.
        let mut table = vec![0.0; 3];
        for at in 0..14 * 14 {
            let pixel = (top * 14 + at / 14) * SIDE_PX + left * 14 + at % 14;
            table.extend(image[pixel * 3..][..3].iter().map(|value| f32::from(*value)));
        }
        let square = |side| PatchGrid { rows: side, cols: side };
        let convention = PositionConvention::ExactSizeAntialias;
        let resized = resample(&table, square(14), square(to), convention).unwrap();
        for at in 0..to * to {
            let pixel = (top * to + at / to) * side + left * to + at % to;
            for colour in 0..3 {
                out[pixel * 3 + colour] = resized[3 + at * 3 + colour].round() as u8;
            }
        }
    }
    out
}

/// A model with a resized patch embedding has the same tokens on enlarged patches.
#[test]
fn patches_can_be_larger() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), |_, _| {});
    // Smooth enough that no pixel overshoots, and that patches of fewer pixels lose little.
    let wave = |at: usize| {
        let (x, y, colour) = (at / 3 % SIDE_PX, at / 3 / SIDE_PX, at % 3);
        127.0 + 90.0 * (x as f32 * 0.09 + colour as f32).sin() * (y as f32 * 0.12).cos()
    };
    let image: Vec<u8> = (0..SIDE_PX * SIDE_PX * 3).map(|at| wave(at).round() as u8).collect();
    let want = tokens(&model, &image, SIDE_PX);
    // Larger patches keep all information; smaller ones lose some.
    for (patch_size, limit) in [(21, 0.01), (16, 0.01), (8, 0.15)] {
        let spec = VitSpec { patch_size, ..model.spec().clone() };
        let side_px = SIDE_PX / 14 * patch_size;
        let got =
            tokens(&pruned(folder.path(), &model, &spec), &with_patches_of(&image, patch_size), side_px);
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>();
        let error = square(&mut got.iter().zip(&want).map(|(got, want)| got - want));
        let error = (error / square(&mut want.iter().copied())).sqrt();
        println!("patches of {patch_size}: {error:.5}");
        assert!(got.len() == want.len() && error < limit, "{patch_size}: {error}");
    }
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

/// Numbers of `source: [.., cols]` at these rows and columns.
fn at(source: &[f32], cols: usize, rows: &[usize], columns: &[usize]) -> Vec<f32> {
    rows.iter().flat_map(|row| columns.iter().map(move |column| source[row * cols + column])).collect()
}

/// In this model one block is useless, and in the others a head, some units and some channels. They are removed, and every kept number is in
/// its place.
#[test]
fn every_size_shrinks_at_once_and_the_useful_stays() {
    let is_useless_head = |block: usize, head: usize| head == if block == 0 { 1 } else { 0 };
    let is_useless_unit = |block: usize, unit: usize| unit < 92 && unit.is_multiple_of(2) == (block == 2);
    let is_useless_channel = |channel: usize| channel.is_multiple_of(3);
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), |name, numbers| {
        let Some((block, part)) = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else {
            return;
        };
        let block: usize = block.parse().unwrap();
        let mut clear = |cols: usize, is_useless: &dyn Fn(usize) -> bool| {
            let numbers = numbers.iter_mut().enumerate();
            numbers.filter(|(place, _)| is_useless(place % cols)).for_each(|(_, number)| *number = 0.0);
        };
        match part {
            "ls1.gamma" | "ls2.gamma" if block == 1 => clear(1, &|_| true),
            "attn.proj.weight" => clear(48, &|col| is_useless_head(block, col / 16)),
            "mlp.fc2.weight" => clear(96, &|col| is_useless_unit(block, col)),
            "attn.qkv.weight" | "mlp.fc1.weight" => clear(48, &is_useless_channel),
            _ => {}
        }
    });
    let spec = VitSpec { depth: 2, dim: 32, heads: 2, mlp_hidden: 50, ..model.spec().clone() };
    let (parameters, kept) = prune(&model, &spec, &pixels(), &mut |_| {}).unwrap();
    assert_eq!(kept.blocks, [0, 2]);
    let channels: Vec<usize> = (0..48).filter(|channel| !is_useless_channel(*channel)).collect();
    assert_eq!(kept.channels, channels);
    let numbers = |name: &str| parameters.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (place, block) in [(0, 0), (1, 2)] {
        let heads: Vec<usize> = (0..3).filter(|head| !is_useless_head(block, *head)).collect();
        let units: Vec<usize> = (0..96).filter(|unit| !is_useless_unit(block, *unit)).collect();
        assert_eq!((&kept.heads[place], &kept.units[place]), (&heads, &units), "block {block}");
        let of_heads: Vec<usize> = heads.iter().flat_map(|head| head * 16..(head + 1) * 16).collect();
        let qkv: Vec<usize> =
            (0..3).flat_map(|part| of_heads.iter().map(move |row| part * 48 + row)).collect();
        for (part, cols, rows, columns) in [
            ("attn.qkv.weight", 48, &qkv, &channels),
            ("attn.qkv.bias", 1, &qkv, &vec![0]),
            ("attn.proj.weight", 48, &channels, &of_heads),
            ("mlp.fc1.weight", 48, &units, &channels),
            ("mlp.fc2.weight", 96, &channels, &units),
            ("norm2.weight", 1, &channels, &vec![0]),
        ] {
            let source = model.f32(&format!("blocks.{block}.{part}")).unwrap();
            assert_eq!(
                numbers(&format!("blocks.{place}.{part}")),
                at(&source, cols, rows, columns),
                "{block} {part}"
            );
        }
    }
    assert_eq!(numbers("cls_token"), at(&model.f32("cls_token").unwrap(), 48, &[0], &channels));
    assert_eq!(numbers("norm.bias"), at(&model.f32("norm.bias").unwrap(), 1, &channels, &[0]));
    let (before, after) = before_and_after(folder.path(), &model, &spec);
    assert_eq!(before.len() / 48, after.len() / 32);
}

#[test]
fn a_shape_that_is_no_part_of_the_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), |_, _| {});
    let source = model.spec().clone();
    for (spec, message) in [
        (VitSpec { depth: 4, ..source.clone() }, "depth: expected at most the model's 3, got 4"),
        (VitSpec { dim: 30, heads: 2, ..source.clone() }, "dim / heads: expected the model's 16, got 15"),
    ] {
        let error = prune(&model, &spec, &pixels(), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
