//! Quantization-aware training: the student is trained with the roundings of the runtime's int8 engine.
//!
//! In every forward pass matrices have the values of an int8 file, and their inputs are rounded token by token as the
//! engine rounds it; scales of weights learn (LSQ, Esser et al. 2020, arXiv 1902.08153), those of activations follow from each
//! token as in the engine, and so do those of attention, which the engine computes in 16 bits. The result is an int8 file that
//! needs no calibration.

use candle_core::{DType, Result, Tensor};
use dinov2_core::VitSpec;
use dinov2_weights::Int8Rows;
use dinov2_weights::layout::slots;
use dinov2_weights::quantize::{round_to_nearest, scales};

use crate::ops::fake_quantize_weight;
use crate::vit::Parameters;

/// Smallest scale, so that rows of zeros have a logarithm.
const LEAST_SCALE: f32 = 1e-20;

/// The matrices that are rounded, and the largest integer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rounding {
    limit: u8,
    /// Names of the weights.
    matrices: Vec<String>,
}

/// Suffix of the variables that hold the logarithms of a weight's scales.
pub(crate) const LOG_SCALE: &str = ".log_scale";

fn log_scale(weight: &str) -> String {
    format!("{weight}{LOG_SCALE}")
}

impl Rounding {
    /// Of all matrices of a model. `limit`: largest magnitude of a weight in units of its scale, 1 to 127.
    pub fn new(spec: &VitSpec, limit: u8) -> Self {
        let matrices = slots(spec).into_iter().filter(|slot| slot.matrix).map(|slot| slot.name);
        Self { limit, matrices: matrices.collect() }
    }

    /// Largest magnitude of a weight in units of its scale.
    pub fn limit(&self) -> u8 {
        self.limit
    }

    /// Initial scales: per row, the clipping of least squared error. A row with the values of
    /// an int8 file gets its old scale back if one of its weights has the largest magnitude.
    ///
    /// # Errors
    /// A matrix that is missing.
    pub fn first_scales(&self, parameters: &Parameters) -> Result<Parameters> {
        let first = |name: &String| {
            let weight = rows(parameters.get(name)?)?;
            let (n, k) = weight.dims2()?;
            let numbers: Vec<f32> = weight.flatten_all()?.to_vec1()?;
            let scales = scales(&numbers, &vec![1.0; k], self.limit);
            let logs = scales.iter().map(|scale| scale.max(LEAST_SCALE).ln()).collect();
            Ok((log_scale(name), Tensor::from_vec(logs, n, weight.device())?))
        };
        self.matrices.iter().map(first).collect()
    }

    /// The parameters with every matrix rounded. Gradients pass to weights and scales.
    ///
    /// # Errors
    /// Parameters without scales.
    pub fn apply(&self, parameters: &Parameters) -> Result<Parameters> {
        let mut all = parameters.clone();
        for name in &self.matrices {
            let weight = parameters.get(name)?;
            let scales = parameters.get(&log_scale(name))?;
            let rounded = fake_quantize_weight(&rows(weight)?, scales, self.limit)?;
            all.set(name, rounded.reshape(weight.shape())?);
        }
        Ok(all)
    }

    /// The integers and scales of a matrix; `None` for other tensors.
    ///
    /// # Errors
    /// Parameters without it or its scales.
    pub fn integers(&self, name: &str, parameters: &Parameters) -> Result<Option<Int8Rows>> {
        if !self.matrices.iter().any(|matrix| matrix == name) {
            return Ok(None);
        }
        let numbers =
            |name: &str| parameters.get(name)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let scales = numbers(&log_scale(name))?.iter().map(|log| log.exp()).collect();
        Ok(Some(round_to_nearest(&numbers(name)?, scales, self.limit)))
    }
}

/// `[n, ..]` as `[n, k]`.
fn rows(weight: &Tensor) -> Result<Tensor> {
    weight.flatten_from(1)
}
