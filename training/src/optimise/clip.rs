//! Gradients by name, and clipping by their common norm.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, bail};

use crate::ops::sum_of_squares;
use crate::vit::Variables;

/// Gradients by the names of their variables.
pub type Gradients = BTreeMap<String, Tensor>;

/// The gradients of `variables`, detached: a gradient of candle's own operations has a graph that would
/// keep everything it was computed from.
///
/// # Errors
/// A variable without a gradient: something between it and the loss has no backward pass.
pub fn gradients(
    grads: &mut GradStore,
    variables: &Variables,
    expected: impl Fn(&str) -> bool,
) -> Result<Gradients> {
    let mut found = Gradients::new();
    for (name, variable) in variables.iter() {
        match grads.remove(variable) {
            Some(grad) => {
                found.insert(name.to_owned(), grad.detach());
            }
            None if expected(name) => bail!("gradient of {name:?}: expected one, got none"),
            None => {}
        }
    }
    Ok(found)
}

/// Scales gradients so that their norm over all of them is at most `most`; returns the norm that they had.
///
/// # Errors
/// Those of candle.
pub fn clip(gradients: &mut Gradients, most: f64) -> Result<f64> {
    let mut sum = 0.0;
    for grad in gradients.values() {
        sum += sum_of_squares(grad)?;
    }
    let norm = sum.sqrt();
    if norm > most {
        for grad in gradients.values_mut() {
            *grad = (&*grad * (most / norm))?;
        }
    }
    Ok(norm)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn all_gradients_are_scaled_to_one_norm() {
        let tensor = |numbers: &[f32]| Tensor::new(numbers, &Device::Cpu).unwrap();
        let gradients =
            || Gradients::from([("a".into(), tensor(&[3.0, 0.0])), ("b".into(), tensor(&[-4.0]))]);
        let clipped = |most: f64| {
            let mut gradients = gradients();
            assert_eq!(clip(&mut gradients, most).unwrap(), 5.0);
            gradients.values().flat_map(|grad| grad.to_vec1::<f32>().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(clipped(5.0), [3.0, 0.0, -4.0]);
        let small = clipped(1.0);
        assert!(small.iter().zip([0.6, 0.0, -0.8]).all(|(got, want)| (got - want).abs() < 1e-6), "{small:?}");
    }
}
