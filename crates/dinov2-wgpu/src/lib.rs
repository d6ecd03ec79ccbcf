//! The GPU engine: DINOv2 model files on Vulkan, Metal and DirectX 12 through wgpu, in kernels of our own.
//!
//! Way of the data through [`WgpuEngine`]: u8 pixels → rows of centred pixels → patch embedding + position table → blocks
//! (LayerNorm, qkv, attention, projection added to the stream; LayerNorm, MLP added to the stream) → final LayerNorm, all in
//! one submission; only final tokens and taps are read back. `tokens: [n, dim]` is the residual stream, f32 in every
//! precision.
//!
//! A [`Gpu`] is an open device, shared by engines. What depends on the grid is planned once per grid (`plan.rs`); a frame is
//! then an upload, a hundred dispatches and a copy.
//!
//! What it does not do: resize images (see `dinov2-io`), read checkpoints (see `dinov2-weights`), choose between GPU and CPU
//! (see `dinov2-edge`).

mod activations;
mod adapter;
mod disk;
mod engine;
mod error;
mod frame;
mod gpu;
mod kernels;
mod layout;
mod matrix;
mod measured;
mod open;
mod peak;
mod pipelines;
mod plan;
mod profile;
mod self_check;
mod step;
#[cfg(test)]
mod test_util;
mod tuning;
mod weights;

pub use adapter::{AdapterFacts, adapters};
pub use engine::{FRAMES_IN_FLIGHT, GpuPrecision, HostTimes, WgpuEngine};
pub use error::GpuError;
pub use gpu::Gpu;
pub use open::{GpuConfig, Tuning};
pub use peak::{GpuPeaks, StageWork};
pub use profile::StageTimes;
pub use step::Stage;
