//! The trait [`Head`]: from the features of a frame to named outputs.
//!
//! A head is one file in this crate with a [`HeadKind`], listed in [`HEADS`](crate::HEADS). Command line, live page, recordings and
//! files show its outputs by their kind ([`HeadOutput`](dinov2_core::HeadOutput)). Heads only compute; they open no files and do not
//! depend on the pipeline.

use std::error::Error;
use std::sync::Arc;

use dinov2_core::{Features, HeadOutputs, ImageView, Taps, VitSpec};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The input of a head: one frame.
#[derive(Clone, Copy, Debug)]
pub struct HeadInput<'a> {
    /// Number of the camera, from 0.
    pub camera: usize,
    /// Input image of the engine, RGB.
    pub image: ImageView<'a>,
    /// Features of the image.
    pub features: &'a Features,
}

/// Computes named outputs from features.
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
    /// Taps that it needs besides the final tokens.
    fn taps(&self) -> Taps {
        Taps::none()
    }

    /// Computes the outputs of one frame. Their names are the head's name, or `NAME.PART` for several outputs. After the first frame of
    /// a size nothing is allocated, unless the documentation of the head says otherwise.
    ///
    /// # Errors
    /// Features that the head cannot process. The error ends the run.
    fn run(&mut self, input: HeadInput<'_>, out: &mut HeadOutputs) -> Result<(), HeadError>;

    /// Executes a command of a viewer or program on the running head, such as `"refit"`.
    ///
    /// # Errors
    /// An unknown command. The run continues.
    fn command(&mut self, command: &Value) -> Result<(), HeadError> {
        Err(HeadError::Command { expected: "no commands", got: command.to_string() })
    }
}

/// Creates a head from its configuration, a JSON object, for a model of this shape.
pub type OpenHead = fn(&Value, &VitSpec) -> Result<Box<dyn Head>, HeadError>;

/// One kind of head: a row of [`HEADS`](crate::HEADS).
#[derive(Clone, Copy)]
pub struct HeadKind {
    /// Name on the command line and prefix of the names of its outputs: lower-case letters and `_`.
    pub name: &'static str,
    /// One line for `--help`.
    pub summary: &'static str,
    /// Creates the head.
    pub open: OpenHead,
}

/// Errors of heads.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// No head of this name.
    #[error("head: expected one of {expected}, got {got:?}")]
    Unknown {
        /// Known names.
        expected: String,
        /// The name.
        got: String,
    },
    /// A configuration that the head cannot use.
    #[error("head {head}: wrong configuration")]
    Config {
        /// Name of the head.
        head: &'static str,
        /// The cause.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// An unknown command.
    #[error("command: expected {expected}, got {got}")]
    Command {
        /// Known commands.
        expected: &'static str,
        /// The command as JSON.
        got: String,
    },
    /// Features that the head cannot process.
    #[error("head {head}: cannot read the features")]
    Features {
        /// Name of the head.
        head: &'static str,
        /// The cause.
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

/// Parses the configuration of a head; `null` is an empty object.
///
/// # Errors
/// [`HeadError::Config`]: unknown or missing fields, or values of a wrong type.
pub fn config_of<T: DeserializeOwned>(head: &'static str, config: &Value) -> Result<T, HeadError> {
    let config = if config.is_null() { Value::Object(Default::default()) } else { config.clone() };
    serde_json::from_value(config).map_err(|error| HeadError::config(head, error))
}
