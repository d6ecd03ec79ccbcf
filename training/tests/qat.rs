//! Quantization-aware training: roundings as in the int8 engine, learning, resuming.

#[path = "support/fidelity.rs"]
mod fidelity;
mod support;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use dinov2_core::{Extractor, Features, ImageView, PatchGrid, Tap, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision};
use dinov2_weights::quantize::{round_to_nearest, scales};
use dinov2_weights::{IMAGENET, Model, Numbers, Quantization, layout, write_quantized};
use training::distill::{Student, write_int8_student};
use training::recipe::Recipe;
use training::vit::{Images, Parameters, Request, Vit, read_parameters};

use fidelity::patch_cosine;
use support::Bench;

const SIDE_PX: usize = 56;

/// Largest integer of a weight: so small that rounding costs much.
const LIMIT: u8 = 3;

const RECIPE: &str = r#"
seed = 5
validation_images = 2
quantize = { weight_limit = 3 }
student = { start = "model" }
loss = { head = "identity", statistics_images = 16, masked = 0.0 }
optimiser = { learning_rate = 1e-3, warm_up_steps = 5, average = 0.9, weight_decay = 0.0 }
[[stages]]
steps = 60
batch = 8
views = { sizes_px = [56], scale = [0.7, 1.0], ratio = [0.9, 1.1], flip = 0.5, grey = 0.0, mixup = 0.0 }
"#;

fn engine(model: &Model, precision: CpuPrecision) -> CpuEngine {
    let mut config = CpuConfig::default();
    config.precision = precision;
    CpuEngine::new(model, config).unwrap()
}

/// Distance of `got` from `want`, relative to `want`.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    let square = |pairs: &mut dyn Iterator<Item = f32>| pairs.map(|x| f64::from(x * x)).sum::<f64>();
    (square(&mut got.iter().zip(want).map(|(got, want)| got - want)) / square(&mut want.iter().copied()))
        .sqrt()
}

/// A student's rounded forward pass against the engine on its file.
#[test]
fn the_roundings_are_those_of_the_engine() {
    let bench = Bench::new(1);
    for limit in [LIMIT, 127] {
        let text = RECIPE.replace("weight_limit = 3", &format!("weight_limit = {limit}"));
        let recipe: Recipe = bench.recipe(&text);
        let first = read_parameters(&bench.model, DType::F32, &Device::Cpu).unwrap();
        let spec = bench.model.spec().clone();
        let student =
            Student::new(spec.clone(), &first, &Parameters::default(), &recipe, &Device::Cpu).unwrap();
        let path = bench.folder.path().join(format!("{limit}.safetensors"));
        let (rounding, card) = (student.rounding.as_ref().unwrap(), bench.config(recipe, "run").card);
        let weights = student.variables.parameters();
        write_int8_student(&spec, &weights, rounding, (&card, 1), &[], &path).unwrap();
        let file = Model::open(&path).unwrap();
        assert!(file.metadata().quantization.as_ref().unwrap().trained);

        let pixels: Vec<u8> =
            (0..SIDE_PX * SIDE_PX * 3).map(|at| (127.0 + 100.0 * (at as f32 * 0.37).sin()) as u8).collect();
        let taps: Vec<Tap> = (0..spec.depth).map(|layer| Tap::Layer { layer, norm: false }).collect();
        let mut features = Features::new();
        let image = ImageView::new(&pixels, SIDE_PX, SIDE_PX).unwrap();
        let wanted = Taps::new(taps.iter().copied());
        engine(&file, CpuPrecision::Int8).extract(image, &wanted, &mut features).unwrap();
        let distances = |vit: &Vit| -> Vec<f64> {
            let grid = PatchGrid { rows: SIDE_PX / spec.patch_size, cols: SIDE_PX / spec.patch_size };
            let images = Images::new(&pixels, grid, spec.patch_size, IMAGENET, &Device::Cpu).unwrap();
            let blocks: Vec<usize> = (0..spec.depth).collect();
            let tokens = vit.forward(&images, Request { taps: &blocks, mask: None }).unwrap();
            let pairs = tokens.taps.iter().zip(&taps);
            let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            pairs.map(|(got, tap)| distance(&flat(got), features.tap(*tap).unwrap())).collect()
        };
        let near = distances(&student.network(&weights).unwrap());
        // The same integers with unrounded inputs.
        let rounded = rounding.apply(&weights).unwrap();
        let far = distances(&student.vit.with_parameters(rounded));
        println!("limit {limit}: after each block {near:.5?}, without rounding of inputs {far:.5?}");
        // What is left at first are sums in another order and weights of the softmax; where they turn a rounding over, the
        // difference is a whole step, so that from block to block it grows towards that of independent roundings.
        assert!(near[0] < far[0] / 3.0, "limit {limit}: {near:?}, {far:?}");
        assert!(near.iter().zip(&far).all(|(near, far)| near < far), "limit {limit}: {near:?}, {far:?}");
    }
}

/// With the same weight limit, a trained file is nearer to the teacher than a rounded one.
#[test]
fn a_student_learns_to_live_with_its_roundings() {
    let bench = Bench::new(34);
    let (path, losses, _) = bench.run(&bench.config(bench.recipe(RECIPE), "run")).unwrap();
    let trained = Model::open(path).unwrap();

    let mut replacements = BTreeMap::new();
    for slot in layout::slots(bench.model.spec()).into_iter().filter(|slot| slot.matrix) {
        let weight = bench.model.f32(&slot.name).unwrap();
        let ones = vec![1.0; slot.len() / slot.shape[0]];
        let rows = round_to_nearest(&weight, scales(&weight, &ones, LIMIT), LIMIT);
        replacements.insert(slot.name, Numbers::Int8(rows));
    }
    let path = bench.folder.path().join("nearest.safetensors");
    let quantization = Quantization {
        weight_limit: LIMIT,
        int4_group: None,
        calibration_images: 0,
        trained: false,
        fidelity: Vec::new(),
    };
    write_quantized(&bench.model, &replacements, quantization, &path).unwrap();
    let nearest = Model::open(path).unwrap();

    let cosine =
        |model: &Model| patch_cosine(&bench.model, (model, CpuPrecision::Int8), &bench.dataset(), SIDE_PX).0;
    let (before, after) = (cosine(&nearest), cosine(&trained));
    println!(
        "loss {:.4} to {:.4}; patch cosine {before:.4} to {after:.4}",
        losses[0],
        losses[losses.len() - 1]
    );
    assert!(1.0 - after < 0.5 * (1.0 - before), "{before} to {after}");

    let quantization = trained.metadata().quantization.as_ref().unwrap();
    assert_eq!((quantization.weight_limit, quantization.calibration_images), (LIMIT, 32));
    let [fidelity] = quantization.fidelity.as_slice() else { panic!("{:?}", quantization.fidelity) };
    assert_eq!((fidelity.size_px, fidelity.patches), (SIDE_PX as u32, 2 * 16));
    assert!(fidelity.median > 0.999 && fidelity.median < 1.0, "{fidelity:?}");
    let values = trained.int8("blocks.0.attn.qkv.weight").unwrap().values;
    assert!(values.iter().all(|value| value.unsigned_abs() <= LIMIT) && values.contains(&3));
}

/// Weights hardly change, so only the scales can bring the student nearer to its teacher.
#[test]
fn scales_learn_what_rounding_does_not_know() {
    let bench = Bench::new(34);
    let trained = |scales: &str| {
        let text = RECIPE
            .replace("learning_rate = 1e-3", "learning_rate = 1e-6")
            .replace("weight_limit = 3", &format!("weight_limit = 3, scale_learning_rate = {scales}"));
        let (path, ..) = bench.run(&bench.config(bench.recipe(&text), scales)).unwrap();
        let model = Model::open(path).unwrap();
        patch_cosine(&bench.model, (&model, CpuPrecision::Int8), &bench.dataset(), SIDE_PX).0
    };
    let [still, learnt] = ["0.0", "1e-2"].map(trained);
    println!("patch cosine {still:.4} with scales that stay, {learnt:.4} with scales that learn");
    assert!(1.0 - learnt < 0.6 * (1.0 - still), "{still} to {learnt}");
}

#[test]
fn scales_are_kept_and_learn() {
    let bench = Bench::new(12);
    let recipe = bench.recipe(&RECIPE.replace("steps = 60", "steps = 6"));
    let whole = std::fs::read(bench.run(&bench.config(recipe.clone(), "whole")).unwrap().0).unwrap();
    let mut parts = bench.config(recipe, "parts");
    parts.stop_after = Some(3);
    let stopped = std::fs::read(bench.run(&parts).unwrap().0).unwrap();
    (parts.stop_after, parts.resume) = (None, true);
    assert!(std::fs::read(bench.run(&parts).unwrap().0).unwrap() == whole, "another student");
    assert!(stopped != whole);
    let checkpoint = std::fs::read(parts.output.join("checkpoints/step-000000006.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&checkpoint).unwrap();
    let scales = |part: &str| -> Vec<u8> {
        file.tensor(&format!("{part}.blocks.1.mlp.fc1.weight.log_scale")).unwrap().data().to_vec()
    };
    assert!(scales("weights") != scales("average") && scales("moments.1").iter().any(|byte| *byte != 0));
}

/// Scales of an int8 file are recovered if its rows use their whole range.
#[test]
fn scales_of_a_quantized_file_are_found_again() {
    let numbers = [127.0f32, -3.0, 0.0, 64.0, 5.0, -127.0, 100.0, 1.0];
    let spec = Bench::new(1).model.spec().clone();
    let rounding = training::qat::Rounding::new(&spec, 127);
    let tensors = layout::slots(&spec).into_iter().filter(|slot| slot.matrix).map(|slot| {
        let values = numbers.iter().cycle().take(slot.len()).map(|x| x * 0.0123).collect::<Vec<f32>>();
        (slot.name, Tensor::from_vec(values, slot.shape, &Device::Cpu).unwrap())
    });
    let tensors: Parameters = tensors.collect();
    for (name, scale) in rounding.first_scales(&tensors).unwrap().iter() {
        let scale: Vec<f32> = scale.to_vec1().unwrap();
        assert!(scale.iter().all(|log| (log.exp() / 0.0123 - 1.0).abs() < 1e-6), "{name}: {scale:?}");
    }
}
