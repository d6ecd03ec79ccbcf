//! The differentiable vision transformer against the reference implementations (`fixtures/make_golden.py`).
#![cfg(not(emulated))]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Case, Picture, Verdict, cases, cosine};
use dinov2_core::PatchGrid;
use dinov2_weights::Model;
use training::vit::{Images, Recomputation, Request, Tokens, Variables, Vit, read_parameters};

/// As for the engine that runs on CPUs.
const LIMIT: f64 = 1e-5;

fn images(model: &Model, picture: &Picture) -> Images {
    let patch_size = model.spec().patch_size;
    let grid = PatchGrid { rows: picture.height_px / patch_size, cols: picture.width_px / patch_size };
    let normalisation = model.metadata().preprocessing.normalisation();
    Images::new(&picture.pixels, grid, patch_size, normalisation, &Device::Cpu).unwrap()
}

fn vit(model: &Model) -> Vit {
    Vit::new(model.spec().clone(), read_parameters(model, DType::F32, &Device::Cpu).unwrap())
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn compare(case: &Case) -> Verdict {
    let mut verdict = Verdict::new(LIMIT);
    let converted = case.convert();
    let model = &converted.model;
    let vit = vit(model);
    let taps: Vec<usize> = (0..model.spec().depth).collect();
    for index in 0..case.number("images") {
        let request = Request { taps: &taps, mask: None };
        let tokens = vit.forward(&images(model, &case.picture(index)), request).unwrap();
        let mut check = |name: String, got: &Tensor| {
            if let Some(want) = case.tensor(&format!("image{index}.{name}")) {
                verdict.compare(&format!("{}: image{index}.{name}", case.name), &flat(got), &want);
            }
        };
        check("tokens".into(), &tokens.normed);
        for (layer, got) in tokens.taps.iter().enumerate() {
            check(dinov2_core::Tap::Layer { layer, norm: false }.to_string(), got);
        }
    }
    verdict.print(&case.name);
    verdict
}

#[test]
fn the_forward_pass_equals_every_source() {
    for case in cases("golden") {
        compare(&case).finish();
    }
}

/// A number that depends on every token in its own way.
fn objective(tokens: &Tokens) -> Tensor {
    let wave = |tensor: &Tensor| {
        let count = tensor.elem_count();
        let wave: Vec<f32> = (0..count).map(|at| (at as f32 * 0.7).sin() / count as f32).collect();
        let wave = Tensor::from_vec(wave, tensor.shape(), &Device::Cpu).unwrap();
        (tensor.to_dtype(DType::F32).unwrap() * wave).unwrap().sum_all().unwrap()
    };
    tokens.taps.iter().fold(wave(&tokens.normed), |sum, tap| (sum + wave(tap)).unwrap())
}

/// Gradients vanish silently in candle where an operation has no backward pass; here every tensor must get one.
#[test]
fn every_tensor_gets_a_gradient_with_and_without_recomputation() {
    for case in cases("golden") {
        let converted = case.convert();
        let model = &converted.model;
        let fixed = vit(model);
        let variables = Variables::new(fixed.parameters()).unwrap();
        let vit = fixed.with_parameters(variables.parameters());
        let images = images(model, &case.picture(0));
        let patches = images.grid().len();
        let mask = (0..patches).map(|at| f32::from(u8::from(at % 3 == 0))).collect::<Vec<_>>();
        let mask = Tensor::from_vec(mask, (patches, 1), &Device::Cpu).unwrap();
        let request = Request { taps: &[0], mask: Some(&mask) };

        let plain = objective(&vit.forward(&images, request).unwrap()).backward().unwrap();
        let (tokens, recomputation) = Recomputation::forward(&vit, &images, request).unwrap();
        let mut again = objective(&tokens).backward().unwrap();
        recomputation.backward(&mut again, &variables).unwrap();
        for (name, variable) in variables.iter() {
            let grad = plain.get(variable).unwrap_or_else(|| panic!("{}: {name}: no gradient", case.name));
            let (grad, again) = (flat(grad), flat(again.get(variable).expect("a gradient")));
            assert!(grad.iter().all(|value| value.is_finite()), "{}: {name}", case.name);
            let largest = grad.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
            assert!(largest > 0.0, "{}: {name}: a gradient of zeros", case.name);
            let error = grad.iter().zip(&again).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error <= 1e-5 * largest, "{}: {name}: {error} of {largest}", case.name);
        }
    }
}

/// What GPUs do: 16-bit floats, operations composed of candle's own.
#[test]
fn bf16_stays_close() {
    for case in cases("golden") {
        let converted = case.convert();
        let model = &converted.model;
        let fixed = vit(model);
        let images = images(model, &case.picture(0));
        let want = flat(&fixed.forward(&images, Request::default()).unwrap().normed);
        let narrow = fixed.with_parameters(fixed.parameters().to_dtype(DType::BF16).unwrap());
        let got = flat(&narrow.forward(&images, Request::default()).unwrap().normed);
        let cosine = cosine(&got, &want);
        assert!(cosine > 0.999, "{}: {cosine}", case.name);
    }
}
