//! Terms of the loss, differentiable, `[.., dim]` each.

use candle_core::{D, Result, Tensor};

/// Added to squared norms.
const LEAST_NORM: f64 = 1e-12;

/// `1 - cos` between the rows of `got` and `want`, `[.., dim]` each; returns `[..]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn cosine(got: &Tensor, want: &Tensor) -> Result<Tensor> {
    (normalised(got)? * normalised(want)?)?.sum(D::Minus1)?.affine(-1.0, 1.0)
}

/// Smooth L1 with threshold 1, mean over the last dimension: `x²/2` where `|x| < 1`, else `|x| - 1/2`. Returns `[..]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn smooth_l1(got: &Tensor, want: &Tensor) -> Result<Tensor> {
    let distance = (got - want)?.abs()?;
    // With m = min(|x|, 1): m²/2 + (|x| - m) is both cases at once.
    let near = distance.minimum(1.0)?;
    ((near.sqr()? * 0.5)? + (&distance - near)?)?.mean(D::Minus1)
}

/// Mean squared difference of the cosines between all pairs of patches of an image. `[batch, patches, dim]` each, widths may
/// differ; returns a scalar.
///
/// # Errors
/// Shapes that do not fit.
pub fn gram(got: &Tensor, want: &Tensor) -> Result<Tensor> {
    let cosines = |tokens: &Tensor| {
        let rows = normalised(tokens)?;
        rows.matmul(&rows.transpose(1, 2)?.contiguous()?)
    };
    (cosines(got)? - cosines(want)?)?.sqr()?.mean_all()
}

/// Rows of norm 1.
fn normalised(tokens: &Tensor) -> Result<Tensor> {
    let norms = (tokens.sqr()?.sum_keepdim(D::Minus1)? + LEAST_NORM)?.sqrt()?;
    tokens.broadcast_div(&norms)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use dinov2_core::PatchGrid;

    use super::super::resize::Resizer;
    use super::*;

    fn tensor(seed: f64, shape: &[usize]) -> Tensor {
        let count: usize = shape.iter().product();
        let numbers: Vec<f64> = (0..count).map(|at| 1.7 * (at as f64 * 1.3 + seed).sin()).collect();
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
    }

    /// The gradient of the sum of a term by central differences.
    fn check(term: impl Fn(&Tensor) -> Result<Tensor>, shape: &[usize]) {
        let input = Var::from_tensor(&tensor(0.2, shape)).unwrap();
        let grads = term(input.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let got: Vec<f64> = grads.get(&input).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let numbers: Vec<f64> = input.flatten_all().unwrap().to_vec1().unwrap();
        let value = |at: usize, by: f64| {
            let mut numbers = numbers.clone();
            numbers[at] += by;
            let moved = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
            term(&moved).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        for (at, got) in got.iter().enumerate() {
            let want = (value(at, 1e-5) - value(at, -1e-5)) / 2e-5;
            assert!((got - want).abs() < 1e-7, "{at}: {got}, {want}");
        }
    }

    #[test]
    fn terms_have_their_gradients() {
        let want = tensor(0.9, &[2, 6, 3]);
        check(|got| cosine(got, &want), &[2, 6, 3]);
        check(|got| smooth_l1(got, &want), &[2, 6, 3]);
        check(|got| gram(got, &want), &[2, 6, 4]);
        let (from, to) = (PatchGrid { rows: 2, cols: 3 }, PatchGrid { rows: 3, cols: 2 });
        let resizer = Resizer::default();
        check(|got| resizer.resize(got, from, to)?.sqr(), &[2, 6, 3]);
    }

    #[test]
    fn terms_have_their_values() {
        let rows = |numbers: &[f64]| Tensor::from_vec(numbers.to_vec(), (1, 2, 2), &Device::Cpu).unwrap();
        let (got, want) = (rows(&[3.0, 0.0, 0.0, 1.0]), rows(&[0.5, 0.0, 2.0, 2.0]));
        let flat = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let close =
            |got: &[f64], want: &[f64]| got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-9);
        assert!(close(&flat(cosine(&got, &want).unwrap()), &[0.0, 1.0 - 0.5f64.sqrt()]));
        assert!(close(&flat(smooth_l1(&got, &want).unwrap()), &[1.0, 1.0]));
        // Cosines between the two rows: 0 and 1/√2, twice each; the diagonals agree.
        assert!(close(&flat(gram(&got, &want).unwrap().reshape(1).unwrap()), &[0.25]));
        let even = Tensor::ones((1, 6, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let (from, to) = (PatchGrid { rows: 2, cols: 3 }, PatchGrid { rows: 4, cols: 5 });
        let resized = Resizer::default().resize(&even, from, to).unwrap();
        let resized: Vec<f32> = resized.flatten_all().unwrap().to_vec1().unwrap();
        assert!(resized.len() == 40 && resized.iter().all(|value| (value - 1.0).abs() < 1e-6));
    }
}
