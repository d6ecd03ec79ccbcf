//! Tensors and variables by their names in a model file.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use dinov2_weights::layout::slots;
use dinov2_weights::{Model, ModelError};

/// Errors of reading a model's tensors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// The model file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The device.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Tensors by their names in a model file.
#[derive(Clone, Debug, Default)]
pub struct Parameters(BTreeMap<String, Tensor>);

impl Parameters {
    /// A tensor.
    ///
    /// # Errors
    /// An unknown name.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        match self.0.get(name) {
            Some(tensor) => Ok(tensor),
            None => bail!("tensor {name:?}: expected one, got none"),
        }
    }

    /// Inserts or replaces a tensor.
    pub fn set(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.0.insert(name.into(), tensor);
    }

    /// Names and tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number type of the matrices.
    pub fn dtype(&self) -> DType {
        self.0.values().next().map_or(DType::F32, Tensor::dtype)
    }

    /// The tensors in another type. Gradients pass through.
    ///
    /// # Errors
    /// Those of candle.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        self.0.iter().map(|(name, tensor)| Ok((name.clone(), tensor.to_dtype(dtype)?))).collect()
    }

    /// The same numbers without graphs.
    #[must_use]
    pub fn detached(&self) -> Self {
        self.0.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect()
    }
}

impl FromIterator<(String, Tensor)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Self(tensors.into_iter().collect())
    }
}

/// The trainable tensors of a model, f32.
#[derive(Clone, Debug)]
pub struct Variables(BTreeMap<String, Var>);

impl Variables {
    /// Makes every tensor trainable.
    ///
    /// # Errors
    /// Those of candle.
    pub fn new(parameters: &Parameters) -> Result<Self> {
        let var = |tensor: &Tensor| Var::from_tensor(&tensor.to_dtype(DType::F32)?);
        parameters
            .iter()
            .map(|(name, tensor)| Ok((name.to_owned(), var(tensor)?)))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Names and variables, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.0.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// Their tensors, which receive gradients.
    pub fn parameters(&self) -> Parameters {
        self.0.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
    }
}

/// Reads a model's tensors. A missing mask token is zeros, its initial value in DINOv2.
///
/// # Errors
/// A model that cannot be read, a device without memory.
pub fn read_parameters(
    model: &Model,
    dtype: DType,
    device: &Device,
) -> std::result::Result<Parameters, ParameterError> {
    let mut tensors = BTreeMap::new();
    for slot in slots(model.spec()) {
        let numbers = match model.tensor(&slot.name) {
            Err(_) if slot.optional => vec![0.0; slot.len()],
            _ => model.f32(&slot.name)?,
        };
        let tensor = Tensor::from_vec(numbers, slot.shape.as_slice(), device)?.to_dtype(dtype)?;
        tensors.insert(slot.name, tensor);
    }
    Ok(Parameters(tensors))
}
