//! What reads the features of a frame and makes named outputs of them: an open set.
//!
//! A head is one file in this crate with a [`HeadKind`], listed in [`HEADS`](crate::HEADS). Command line, live page, recordings and
//! files show its outputs by their kind ([`HeadOutput`](dinov2_core::HeadOutput)). Heads compute; they open no files and know no pipeline.

use std::error::Error;
use std::sync::Arc;

use dinov2_core::{Features, HeadOutputs, ImageView, Taps, VitSpec};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A frame as heads see it.
#[derive(Clone, Copy, Debug)]
pub struct HeadInput<'a> {
    /// Number of the camera, from 0.
    pub camera: usize,
    /// The image that the engine saw, RGB.
    pub image: ImageView<'a>,
    /// Its features.
    pub features: &'a Features,
}

/// Reads features and writes named outputs.
///
/// ```
/// use dinov2_core::HeadOutputs;
/// use dinov2_heads::{Head, HeadError, HeadInput};
///
/// /// Mean of all values of the frame.
/// struct Mean;
///
/// impl Head for Mean {
///     fn run(&mut self, input: HeadInput<'_>, out: &mut HeadOutputs) -> Result<(), HeadError> {
///         let patches = input.features.patches();
///         out.score("mean", patches.iter().sum::<f32>() / patches.len() as f32);
///         Ok(())
///     }
/// }
/// ```
pub trait Head: Send {
    /// Readouts that it needs besides the final tokens.
    fn taps(&self) -> Taps {
        Taps::none()
    }

    /// Computes the outputs of one frame. Names begin with the head's own: `NAME`, or `NAME.PART` where it has several outputs. After
    /// the first frame of a size nothing is allocated, unless its documentation says otherwise.
    ///
    /// # Errors
    /// Features that it cannot read. The run ends with it.
    fn run(&mut self, input: HeadInput<'_>, out: &mut HeadOutputs) -> Result<(), HeadError>;

    /// Does what a viewer or program asks of a running head, such as `"refit"`.
    ///
    /// # Errors
    /// A command that it does not have. The run goes on.
    fn command(&mut self, command: &Value) -> Result<(), HeadError> {
        Err(HeadError::Command { expected: "no commands", got: command.to_string() })
    }
}

/// Makes a head from its configuration, a JSON object, for a model of this shape.
pub type OpenHead = fn(&Value, &VitSpec) -> Result<Box<dyn Head>, HeadError>;

/// One kind of head: a row of [`HEADS`](crate::HEADS).
#[derive(Clone, Copy)]
pub struct HeadKind {
    /// Name on the command line and beginning of its outputs' names: lower case, letters and `_`.
    pub name: &'static str,
    /// One line for `--help`.
    pub summary: &'static str,
    /// Makes one.
    pub open: OpenHead,
}

/// Why a head cannot be opened or does not go on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// No head of this name.
    #[error("head: expected one of {expected}, got {got:?}")]
    Unknown {
        /// Names that there are.
        expected: String,
        /// Name given.
        got: String,
    },
    /// A configuration that the head cannot use.
    #[error("head {head}: wrong configuration")]
    Config {
        /// Name of the head.
        head: &'static str,
        /// What is wrong with it.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A command that the head does not have.
    #[error("command: expected {expected}, got {got}")]
    Command {
        /// What there is.
        expected: &'static str,
        /// Command given, JSON.
        got: String,
    },
    /// Features that the head cannot read.
    #[error("head {head}: cannot read the features")]
    Features {
        /// Name of the head.
        head: &'static str,
        /// What is wrong with them.
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl HeadError {
    /// [`HeadError::Features`].
    pub fn features(head: &'static str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Features { head, source: Arc::from(cause.into()) }
    }

    /// [`HeadError::Config`].
    pub fn config(head: &'static str, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Config { head, source: Arc::from(cause.into()) }
    }
}

/// Reads a configuration of a head; `null` counts as an empty object.
///
/// # Errors
/// [`HeadError::Config`]: fields that are unknown, missing or of another type.
pub fn config_of<T: DeserializeOwned>(head: &'static str, config: &Value) -> Result<T, HeadError> {
    let config = if config.is_null() { Value::Object(Default::default()) } else { config.clone() };
    serde_json::from_value(config).map_err(|error| HeadError::config(head, error))
}
