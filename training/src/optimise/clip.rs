use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, bail};

use crate::ops::sum_of_squares;
use crate::vit::Variables;

/// Gradients by the names of their variables.
pub type Gradients = BTreeMap<String, Tensor>;

/// The gradients of `variables`, which all must have one, outside of every graph: one that candle's own operations made would
/// keep all that led to it.
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
