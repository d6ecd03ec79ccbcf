//! What can go wrong on a GPU. Messages of drivers are kept as text, because their types do not outlive the device.

use dinov2_core::ExtractError;
use dinov2_weights::ModelError;

/// Why a GPU engine cannot be made, or why it failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// There is no adapter, or none with the requested name.
    #[error("gpu: expected {wanted}, got {found} (drivers: Vulkan, Metal or DirectX 12)")]
    NoAdapter {
        /// What was looked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The driver refused to open the device.
    #[error("gpu {adapter}: cannot be opened: {reason}")]
    Open {
        /// Name of the adapter.
        adapter: String,
        /// The driver's reason.
        reason: String,
    },
    /// f16 was requested, but the device has none.
    #[error("precision: gpu {adapter} has no 16-bit floats: use --precision f32 or int8")]
    NoF16 {
        /// Name of the adapter.
        adapter: String,
    },
    /// A tensor is missing in the model file or cannot be read; the message has all causes.
    #[error("{0}")]
    Model(String),
    /// A model that the kernels do not cover.
    #[error("gpu: {what}: expected at most {most}, got {got}")]
    Unsupported {
        /// Quantity of the model.
        what: &'static str,
        /// Its limit.
        most: usize,
        /// Its value.
        got: usize,
    },
    /// A matrix or a frame larger than one buffer of the device.
    #[error("gpu: {what} takes {bytes} bytes, but a buffer of this device holds at most {most}")]
    TooLarge {
        /// What does not fit.
        what: String,
        /// Bytes that it takes.
        bytes: u64,
        /// The device's limit.
        most: u64,
    },
    /// The device has no more memory.
    #[error("gpu: out of memory ({0}); try a smaller size, or --backend cpu")]
    OutOfMemory(String),
    /// The device is gone: unplugged, reset or shut down. A new engine may find it again.
    #[error("gpu: the device was lost: {0}")]
    Lost(String),
    /// The device did not finish a frame in time.
    #[error("gpu: no answer within {seconds} s")]
    Timeout {
        /// Time waited, in seconds.
        seconds: u64,
    },
    /// The driver or the graphics library returned an error.
    #[error("gpu: {0}")]
    Driver(String),
}

impl From<ModelError> for GpuError {
    fn from(error: ModelError) -> Self {
        Self::Model(dinov2_files::chain(&error))
    }
}

impl From<GpuError> for ExtractError {
    fn from(error: GpuError) -> Self {
        Self::failed(crate::BACKEND, error)
    }
}
