//! The exponential moving average of weights.

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
    /// Starts with a copy of the weights.
    ///
    /// # Errors
    /// Those of candle.
    pub fn new(decay: f64, variables: &Variables) -> Result<Self> {
        let copies = variables
            .iter()
            .map(|(name, variable)| Ok((name.to_owned(), variable.as_tensor().copy()?.detach())));
        Ok(Self { decay, weights: copies.collect::<Result<_>>()? })
    }

    /// Continues from averaged weights.
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn the_start_is_forgotten_sooner_than_what_follows() {
        let tensor = |number: f32| Tensor::new(&[number], &Device::Cpu).unwrap();
        let variables =
            |number: f32| Variables::new(&[("w".to_owned(), tensor(number))].into_iter().collect()).unwrap();
        let mut average = Average::new(0.5, &variables(8.0)).unwrap();
        let mut want = 8.0;
        // Decays of 1/10, 2/11, 3/12, …, until the largest one is reached.
        for (step, number) in [1.0, -2.0, 4.0, 0.5, 1.0, 2.0, 3.0, 5.0, 1.0, 9.0, 7.0].into_iter().enumerate()
        {
            average.update(&variables(number), step as u64).unwrap();
            let decay = if step < 8 { (1 + step) as f32 / (10 + step) as f32 } else { 0.5 };
            want = decay * want + (1.0 - decay) * number;
            let got = average.weights().get("w").unwrap().to_vec1::<f32>().unwrap()[0];
            assert!((got - want).abs() < 1e-5, "step {step}: {got}, expected {want}");
        }
    }
}
