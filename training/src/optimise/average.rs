use candle_core::Result;

use crate::ops::average_step;
use crate::vit::{Parameters, Variables};

/// Averaged weights: `average = decay · average + (1 - decay) · weights` after every step. In the first steps the decay is
/// less, `(1 + step) / (10 + step)`, so that the start is soon forgotten.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    weights: Parameters,
}

impl Average {
    /// Starts as the weights are.
    ///
    /// # Errors
    /// Those of candle.
    pub fn new(decay: f64, variables: &Variables) -> Result<Self> {
        let copies = variables
            .iter()
            .map(|(name, variable)| Ok((name.to_owned(), variable.as_tensor().copy()?.detach())));
        Ok(Self { decay, weights: copies.collect::<Result<_>>()? })
    }

    /// Goes on from averaged weights.
    pub fn resume(decay: f64, weights: Parameters) -> Self {
        Self { decay, weights }
    }

    /// After step `step`, counted from 0.
    ///
    /// # Errors
    /// Those of candle.
    pub fn update(&mut self, variables: &Variables, step: u64) -> Result<()> {
        let decay = self.decay.min((1 + step) as f64 / (10 + step) as f64);
        let weights = variables.iter().map(|(name, variable)| {
            let average = average_step(decay, self.weights.get(name)?, variable.as_tensor())?;
            Ok((name.to_owned(), average))
        });
        self.weights = weights.collect::<Result<_>>()?;
        Ok(())
    }

    /// The largest decay.
    pub fn decay(&self) -> f64 {
        self.decay
    }

    /// The averaged weights.
    pub fn weights(&self) -> &Parameters {
        &self.weights
    }
}
