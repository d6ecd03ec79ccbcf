//! The arithmetic of GPUs on the CPU: in bf16 every operation is composed of candle's.

mod support;

use candle_core::{DType, Device, Tensor};
use dinov2_core::PatchGrid;
use dinov2_core::statistics::cosine;
use training::data::{Batch, Pixels};
use training::teacher::{Teacher, VitTeacher};
use training::vit::{Images, Recomputation, Request, Tokens, Variables, Vit, read_parameters};

use support::Bench;

const RECIPE: &str = r#"
seed = 3
precision = "bf16"
recompute = true
validation_images = 4
student = { start = "model", depth = 2 }
loss = { head = "identity", statistics_images = 16, taps = [{ student_block = 0, teacher_block = 0 }], masked_steps = 0.7 }
optimiser = { learning_rate = 1e-3, warm_up_steps = 2, average = 0.9 }
[[stages]]
steps = 6
batch = 4
accumulate = 2
views = { sizes_px = [42, 56], scale = [0.5, 1.0], ratio = [0.8, 1.25], flip = 0.5, grey = 0.1, mixup = 0.0 }
"#;

/// Squares of 42 pixels.
fn pixels(images: usize) -> Pixels {
    let wave = |at: usize| (128.0 + 120.0 * (at as f32 * 0.37).sin()) as u8;
    Pixels { side_px: 42, data: (0..images * 42 * 42 * 3).map(wave).collect() }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// A number that depends on every token differently.
fn objective(tokens: &Tokens) -> Tensor {
    let wave = |tensor: &Tensor| {
        let wave: Vec<f32> = (0..tensor.elem_count()).map(|at| (at as f32 * 0.7).sin()).collect();
        let wave = Tensor::from_vec(wave, tensor.shape(), &Device::Cpu).unwrap();
        (tensor.to_dtype(DType::F32).unwrap() * wave).unwrap().sum_all().unwrap()
    };
    tokens.taps.iter().fold(wave(&tokens.normed), |sum, tap| (sum + wave(tap)).unwrap())
}

#[test]
fn recomputation_changes_no_gradient() {
    let bench = Bench::new(0);
    let spec = bench.model.spec();
    let parameters = read_parameters(&bench.model, DType::F32, &Device::Cpu).unwrap();
    let variables = Variables::new(&parameters).unwrap();
    let vit = Vit::new(spec.clone(), variables.parameters().to_dtype(DType::BF16).unwrap());
    let grid = PatchGrid { rows: 3, cols: 3 };
    let normalisation = bench.model.metadata().preprocessing.normalisation();
    let images = Images::new(&pixels(2).data, grid, spec.patch_size, normalisation, &Device::Cpu).unwrap();
    let request = Request { taps: &[0], mask: None };

    let plain = objective(&vit.forward(&images, request).unwrap()).backward().unwrap();
    let (tokens, recomputation) = Recomputation::forward(&vit, &images, request).unwrap();
    let mut again = objective(&tokens).backward().unwrap();
    recomputation.backward(&mut again, &variables).unwrap();
    for (name, variable) in variables.iter().filter(|(name, _)| *name != "mask_token") {
        let [plain, again] = [&plain, &again].map(|grads| flat(grads.get(variable).unwrap()));
        let close = cosine(&plain, &again);
        assert!(close > 0.999, "{name}: {close}");
    }
}

/// Grids other than the stored table's, held-out images through the averaged student in f32, hidden patches.
#[test]
fn a_student_learns_in_16_bits() {
    let bench = Bench::new(22);
    let run = |precision: &str| {
        let mut config =
            bench.config(bench.recipe(&RECIPE.replace("\"bf16\"", &format!("\"{precision}\""))), precision);
        config.validate_every = 2;
        let (_, losses, agreement) = bench.run(&config).unwrap();
        (losses, agreement.unwrap())
    };
    let ((narrow, narrow_end), (wide, wide_end)) = (run("bf16"), run("f32"));
    for (narrow, wide) in narrow.iter().zip(&wide) {
        assert!((narrow / wide - 1.0).abs() < 0.03, "{narrow} {wide}");
    }
    assert!((narrow_end.patch_median - wide_end.patch_median).abs() < 0.01, "{narrow_end:?} {wide_end:?}");
}

#[test]
fn a_teacher_says_the_same_in_parts() {
    let bench = Bench::new(0);
    let teacher = || VitTeacher::new(&bench.model, DType::F32, &[1, 0], &Device::Cpu).unwrap();
    let batch = Batch { step: 0, samples: vec![0; 5], student: pixels(5), teacher: None };
    let want = teacher().targets(&batch).unwrap();
    let tokens = bench.model.spec().tokens(want.grid);
    let two_images = 2 * bench.model.spec().heads * tokens * tokens;
    for most_scores in [1, two_images] {
        let got = teacher().with_most_scores(most_scores).targets(&batch).unwrap();
        let pairs = [(&got.cls, &want.cls), (&got.patches, &want.patches)];
        for (got, want) in pairs.into_iter().chain(got.taps.iter().zip(&want.taps)) {
            assert_eq!(got.dims(), want.dims());
            assert!(flat(got).iter().zip(flat(want)).all(|(got, want)| (got - want).abs() < 1e-5));
        }
    }
}
