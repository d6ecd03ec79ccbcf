//! Every operation against central differences in f64 and against its composed form.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::*;

/// Deterministic numbers in -1..1.
fn numbers(seed: usize, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|at| ((at * 7 + seed * 131) as f64 * 12.9898).sin()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

type Operation<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// `Σ result · direction`, a number that depends on every part of the result differently.
fn objective(operation: Operation<'_>, inputs: &[Tensor]) -> Tensor {
    let result = operation(inputs).unwrap();
    let direction = numbers(99, result.dims()).to_dtype(result.dtype()).unwrap();
    (result * direction).unwrap().sum_all().unwrap()
}

fn gradients(operation: Operation<'_>, inputs: &[Tensor], dtype: DType) -> Vec<Tensor> {
    let inputs: Vec<Var> =
        inputs.iter().map(|input| Var::from_tensor(&input.to_dtype(dtype).unwrap()).unwrap()).collect();
    let tensors: Vec<Tensor> = inputs.iter().map(|var| var.as_tensor().clone()).collect();
    let grads = objective(operation, &tensors).backward().unwrap();
    inputs.iter().map(|input| grads.get(input).expect("a gradient").to_dtype(DType::F64).unwrap()).collect()
}

/// The gradients of `operation` in f64 by central differences.
fn differences(operation: Operation<'_>, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    const STEP: f64 = 1e-5;
    let value = |inputs: &[Tensor]| objective(operation, inputs).to_scalar::<f64>().unwrap();
    let mut found = Vec::new();
    for index in 0..inputs.len() {
        let flat: Vec<f64> = inputs[index].flatten_all().unwrap().to_vec1().unwrap();
        let moved = |at: usize, by: f64| {
            let mut flat = flat.clone();
            flat[at] += by;
            let mut inputs = inputs.to_vec();
            inputs[index] = Tensor::from_vec(flat, inputs[index].shape(), &Device::Cpu).unwrap();
            value(&inputs)
        };
        found.push((0..flat.len()).map(|at| (moved(at, STEP) - moved(at, -STEP)) / (2.0 * STEP)).collect());
    }
    found
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(what: &str, got: &[f64], want: &[f64], limit: f64) {
    let largest = want.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
    let error = got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max) / largest;
    assert!(got.len() == want.len() && error < limit, "{what}: {error}");
}

/// The composed form is held to differences, the fused one (f32) to the composed one in f64.
fn check(what: &str, fused: Operation<'_>, composed: Operation<'_>, shapes: &[&[usize]]) {
    let inputs: Vec<Tensor> =
        shapes.iter().enumerate().map(|(index, shape)| numbers(index + 1, shape)).collect();
    let exact = gradients(composed, &inputs, DType::F64);
    for (index, want) in differences(composed, &inputs).iter().enumerate() {
        assert_close(&format!("{what}, composed, input {index}"), &flat(&exact[index]), want, 1e-7);
    }
    let narrow: Vec<Tensor> = inputs.iter().map(|input| input.to_dtype(DType::F32).unwrap()).collect();
    let (got, want) = (fused(&narrow).unwrap(), composed(&inputs).unwrap());
    assert_close(&format!("{what}, result"), &flat(&got), &flat(&want), 2e-6);
    for (index, (got, want)) in gradients(fused, &inputs, DType::F32).iter().zip(&exact).enumerate() {
        assert_close(&format!("{what}, fused, input {index}"), &flat(got), &flat(want), 5e-6);
    }
}

#[test]
fn linear_has_its_gradients() {
    check(
        "linear",
        &|x| linear(&x[0], &x[1], &x[2]),
        &|x| composed::linear(&x[0], &x[1], &x[2]),
        &[&[70, 3], &[5, 3], &[5]],
    );
}

#[test]
fn layer_norm_has_its_gradients() {
    check(
        "layer_norm",
        &|x| layer_norm(&x[0], &x[1], &x[2], 1e-6),
        &|x| composed::layer_norm(&x[0], &x[1], &x[2], 1e-6),
        &[&[67, 6], &[6], &[6]],
    );
}

#[test]
fn gelu_has_its_gradient() {
    let wide = |x: &Tensor| x * 4.0;
    check("gelu", &|x| gelu(&wide(&x[0])?), &|x| composed::gelu(&wide(&x[0])?), &[&[9, 11]]);
}

#[test]
fn attention_has_its_gradient() {
    let shape = AttentionShape { batch: 2, tokens: 5, heads: 3, head_dim: 4 };
    check(
        "attention",
        &|x| attention(&(&x[0] * 3.0)?, shape),
        &|x| composed::attention(&(&x[0] * 3.0)?, shape),
        &[&[10, 36]],
    );
}

#[test]
fn add_scaled_has_its_gradients() {
    check(
        "add_scaled",
        &|x| add_scaled(&x[0], &x[1], &x[2]),
        &|x| composed::add_scaled(&x[0], &x[1], &x[2]),
        &[&[66, 4], &[66, 4], &[4]],
    );
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let tensor = |shape: &[usize]| numbers(1, shape).to_dtype(DType::F32).unwrap();
    assert!(linear(&tensor(&[2, 3]), &tensor(&[4, 2]), &tensor(&[4])).is_err());
    assert!(linear(&tensor(&[2, 3]), &tensor(&[4, 3]), &tensor(&[3])).is_err());
    assert!(layer_norm(&tensor(&[2, 3]), &tensor(&[2]), &tensor(&[3]), 1e-6).is_err());
    assert!(add_scaled(&tensor(&[2, 3]), &tensor(&[2, 2]), &tensor(&[3])).is_err());
    let shape = AttentionShape { batch: 2, tokens: 2, heads: 1, head_dim: 2 };
    assert!(attention(&tensor(&[4, 5]), shape).is_err());
}

/// Rounding has no useful derivative: the gradients are those of the operation with the residue of its rounding held fixed.
#[test]
fn fake_quantized_weights_have_straight_through_and_lsq_gradients() {
    const LIMIT: u8 = 5;
    let weight = numbers(1, &[7, 9]);
    // So that some weights are beyond the range and most within.
    let log_scale = ((numbers(2, &[7]) * 0.4).unwrap() - 1.9).unwrap();
    let unrounded = |x: &[Tensor]| {
        let scale = x[1].exp()?.unsqueeze(1)?;
        x[0].broadcast_div(&scale)?.clamp(-5.0, 5.0)
    };
    let inputs = [weight, log_scale];
    let base = unrounded(&inputs).unwrap();
    let beyond = flat(&base).iter().filter(|value| value.abs() == 5.0).count();
    assert!((5..40).contains(&beyond), "{beyond} of 63 beyond the range");
    let residue = (base.round().unwrap() - base).unwrap();
    let fixed = |x: &[Tensor]| (unrounded(x)? + &residue)?.broadcast_mul(&x[1].exp()?.unsqueeze(1)?);
    let composed = |x: &[Tensor]| composed::fake_quantize_weight(&x[0], &x[1], LIMIT);
    let fused = |x: &[Tensor]| fake_quantize_weight(&x[0], &x[1], LIMIT);
    let exact = gradients(&composed, &inputs, DType::F64);
    let narrow = gradients(&fused, &inputs, DType::F32);
    for (index, want) in differences(&fixed, &inputs).iter().enumerate() {
        assert_close(&format!("composed, input {index}"), &flat(&exact[index]), want, 1e-7);
        assert_close(&format!("fused, input {index}"), &flat(&narrow[index]), want, 1e-5);
    }
    let of_f32 = inputs.map(|input| input.to_dtype(DType::F32).unwrap());
    assert_close("result", &flat(&fused(&of_f32).unwrap()), &flat(&composed(&of_f32).unwrap()), 1e-6);
}

/// The 16-bit engine's own attention against ours on rounded queries, keys and values. Outliers make the roundings coarse where they
/// share a scale with others: a token's queries in a head, all keys of a head, all values of a channel.
#[test]
fn queries_keys_and_values_are_rounded_as_the_engine_rounds_them() {
    use dinov2_kernels::attention_i16::{self, KeyValuePanelsI16};
    use dinov2_kernels::{Isa, Pool};

    let (tokens, heads, head_dim) = (40, 3, 16);
    let dim = heads * head_dim;
    let mut qkv: Vec<f32> =
        numbers(5, &[tokens * 3 * dim]).to_vec1::<f64>().unwrap().iter().map(|x| *x as f32).collect();
    let place =
        |token: usize, part: usize, head: usize, at: usize| (token * 3 + part) * dim + head * head_dim + at;
    // Where one factor is large the other is zero, so that the scores do not change.
    for token in 0..tokens {
        qkv[place(token, 0, 1, 3)] = 0.0;
        qkv[place(token, 1, 2, 4)] = 0.0;
    }
    qkv[place(5, 1, 1, 3)] = 4e3;
    qkv[place(7, 0, 2, 4)] = 4e3;
    qkv[place(9, 2, 0, 2)] = 4e3;
    let shape = AttentionShape { batch: 1, tokens, heads, head_dim };
    let tensor = Tensor::from_vec(qkv.clone(), (tokens, 3 * dim), &Device::Cpu).unwrap();
    let plain = flat(&attention(&tensor, shape).unwrap());
    let ours = flat(&attention(&fake_quantize_attention(&tensor, shape).unwrap(), shape).unwrap());
    let distance = |a: &[f64], b: &[f32]| {
        // The channel with the large value is compared separately: it would hide the others.
        let of = |other: bool| {
            let numbers = a.iter().zip(b).enumerate().filter(move |(at, _)| (at % dim != 2) == other);
            numbers.fold([0.0, 0.0], |[error, norm], (_, (a, b))| {
                [error + (a - f64::from(*b)).powi(2), norm + a * a]
            })
        };
        [true, false].map(of).map(|[error, norm]| (error / norm).sqrt())
    };
    let engine = dinov2_kernels::attention::AttentionShape { tokens, heads, head_dim };
    let supported: Vec<Isa> =
        Isa::available().filter(|isa| attention_i16::is_supported(*isa, engine)).collect();
    if supported.is_empty() {
        eprintln!("SKIPPED: no instruction set of this CPU has attention in 16 bits");
    }
    for isa in supported {
        let mut out = vec![0.0; tokens * dim];
        let pool = Pool::new(std::num::NonZeroUsize::MIN);
        attention_i16::attention_i16(isa, &pool, engine, &qkv, &mut KeyValuePanelsI16::default(), &mut out);
        let (near, far) = (distance(&ours, &out), distance(&plain, &out));
        assert!(
            near.iter().all(|near| *near < 5e-4) && far[0] > 20.0 * near[0],
            "{}: {near:?} {far:?}",
            isa.name()
        );
    }
}

/// The int8 engine's own rounding, seen through a layer that hands its input on: the identity in int8.
#[test]
fn rows_are_rounded_as_the_engine_rounds_them() {
    use dinov2_kernels::gemm_i8::{Int8Weight, PackedLinearI8};
    use dinov2_kernels::quantize::{QuantizedRows, quantize_rows};
    use dinov2_kernels::{Epilogue, Isa, Pool};

    let (rows, k) = (70, 37);
    let mut input = numbers(3, &[rows, k]).to_dtype(DType::F32).unwrap();
    // One-sided rows, rows of zeros, outliers, tiny numbers.
    let factor: Vec<f32> = (0..rows).map(|row| [1.0, 0.0, 1e-30, 1e4, 3e-40][row % 5]).collect();
    let offset: Vec<f32> = (0..rows).map(|row| [0.0, 0.0, 0.0, 2e4, 0.0, 1.2, -1.2][row % 7]).collect();
    let column = |numbers: Vec<f32>| Tensor::from_vec(numbers, (rows, 1), &Device::Cpu).unwrap();
    input = input.broadcast_mul(&column(factor)).unwrap().broadcast_add(&column(offset)).unwrap();
    let numbers: Vec<f32> = input.flatten_all().unwrap().to_vec1().unwrap();

    let mut identity = vec![0i8; k * k];
    identity.iter_mut().step_by(k + 1).for_each(|one| *one = 1);
    let weight = Int8Weight { values: &identity, scale: &vec![1.0; k], bias: &vec![0.0; k], k };
    let pool = Pool::new(std::num::NonZeroUsize::MIN);
    for isa in Isa::available() {
        let (mut quantized, mut want) = (QuantizedRows::default(), vec![0.0; rows * k]);
        quantize_rows(isa, &pool, &numbers, k, &mut quantized);
        PackedLinearI8::pack(isa, weight).apply(isa, &pool, Epilogue::Store, &quantized, &mut want);
        let got: Vec<f32> = fake_quantize_rows(&input).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(got == want, "{}", isa.name());
    }
    let composed = composed::fake_quantize_rows(&input.to_dtype(DType::F64).unwrap()).unwrap();
    let exact: Vec<f64> = flat(&composed);
    let fused = flat(&fake_quantize_rows(&input).unwrap());
    for (row, (exact, fused)) in exact.chunks_exact(k).zip(fused.chunks_exact(k)).enumerate() {
        let largest = exact.iter().fold(f64::from(f32::MIN_POSITIVE) * 256.0, |most, x| most.max(x.abs()));
        let worst = exact.iter().zip(fused).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(worst <= largest / 1e5, "row {row}: {worst} of {largest}");
    }
    let var = Var::from_tensor(&input).unwrap();
    let passed = fake_quantize_rows(var.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(flat(passed.get(&var).unwrap()).iter().all(|grad| *grad == 1.0));
}

#[test]
fn what_is_not_finite_stays_so() {
    for wrong in [f32::NAN, f32::INFINITY] {
        let input = Tensor::new(&[[1.0, wrong, -2.0], [0.5, 0.25, 1.0]], &Device::Cpu).unwrap();
        let got: Vec<Vec<f32>> = fake_quantize_rows(&input).unwrap().to_vec2().unwrap();
        assert!(got[0].iter().any(|x| !x.is_finite()) && got[1].iter().all(|x| x.is_finite()), "{got:?}");
    }
}
