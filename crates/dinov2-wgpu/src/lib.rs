//! The GPU engine: DINOv2 model files on Vulkan, Metal and DirectX 12 through wgpu, in kernels of our own.
//!
//! ```no_run
//! use dinov2_core::{Extractor, Features, ImageView, Taps};
//! use dinov2_weights::Model;
//! use dinov2_wgpu::{Gpu, GpuConfig, GpuPrecision, WgpuEngine};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gpu = Gpu::open(&GpuConfig::default())?; // the most capable one
//! let model = Model::open("model.safetensors")?;
//! let mut engine = WgpuEngine::new(&gpu, &model, GpuPrecision::F16)?;
//!
//! let pixels = vec![127; 224 * 224 * 3]; // RGB; sides are multiples of the patch size
//! let image = ImageView::new(&pixels, 224, 224)?;
//! let mut features = Features::new(); // reused from frame to frame
//! engine.extract(image, &Taps::none(), &mut features)?;
//!
//! // Two frames in flight: upload, computation and readback overlap.
//! engine.submit(image, &Taps::none())?;
//! engine.submit(image, &Taps::none())?;
//! engine.receive(&mut features)?;
//! engine.receive(&mut features)?;
//! # Ok(())
//! # }
//! ```
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
//!
//! ```no_run
//! use dinov2_core::{Extractor, Features, ImageView, Taps};
//! use dinov2_weights::Model;
//! use dinov2_wgpu::{Gpu, GpuConfig, GpuPrecision, WgpuEngine};
//!
//! let gpu = Gpu::open(&GpuConfig::default())?;
//! let model = Model::open("vits14.safetensors")?;
//! let mut engine = WgpuEngine::new(&gpu, &model, GpuPrecision::F32)?;
//! let pixels = vec![0; 224 * 224 * 3]; // RGB, row by row
//! let mut features = Features::new();
//! engine.extract(ImageView::new(&pixels, 224, 224)?, &Taps::none(), &mut features)?;
//! println!("{} numbers per patch", features.dim());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
mod runtime;
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
pub use runtime::BACKEND;
pub use step::Stage;
