//! The native CPU engine: a model file's weights, packed once for this CPU, run by [`dinov2_kernels`].
//!
//! ```
//! use dinov2_core::{Extractor, Features, ImageView, Taps};
//! use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision};
//! use dinov2_weights::Model;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/vits14-focus-int8.safetensors");
//! let model = Model::open(path)?;
//! let mut config = CpuConfig::default(); // f32; threads and instruction set of this machine
//! config.precision = CpuPrecision::Int8;
//! let mut engine = CpuEngine::new(&model, config)?;
//!
//! let pixels = vec![127; 224 * 168 * 3]; // RGB; sides are multiples of the patch size
//! let mut features = Features::new(); // reused from frame to frame
//! engine.extract(ImageView::new(&pixels, 224, 168)?, &Taps::none(), &mut features)?;
//! assert_eq!(features.patches().len(), 12 * 16 * 384); // [rows, cols, dim]
//! # Ok(())
//! # }
//! ```
//!
//! Way of the data through [`CpuEngine`]: u8 pixels → rows of centred pixels → patch embedding + position table →
//! blocks (each: LayerNorm, qkv, attention, projection added to the stream; LayerNorm, MLP added to the stream) →
//! final LayerNorm. `tokens: [n, dim]` is the residual stream, updated in place by the GEMM epilogues.
//!
//! LayerScale is folded into the projections that it follows, ImageNet's mean and standard deviation into the patch
//! embedding. After the first frame of a grid nothing is allocated. Results do not depend on the number of threads.
//!
//! With [`Incremental`], rows that hardly changed since the frame before are reused (`incremental.rs`).
//!
//! What it does not do: resize images (see `dinov2-io`), read checkpoints (see `dinov2-weights`).
//!
//! ```no_run
//! use dinov2_core::{Extractor, Features, ImageView, Taps};
//! use dinov2_cpu::{CpuConfig, CpuEngine};
//! use dinov2_weights::Model;
//!
//! let model = Model::open("vits14.safetensors")?;
//! let mut engine = CpuEngine::new(&model, CpuConfig::default())?;
//! let pixels = vec![0; 224 * 224 * 3]; // RGB, row by row
//! let mut features = Features::new();
//! engine.extract(ImageView::new(&pixels, 224, 224)?, &Taps::none(), &mut features)?;
//! println!("{} numbers per patch", features.dim());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod block;
mod config;
mod engine;
mod forward;
mod incremental;
mod linear;
mod load;
mod positions;
mod rows;
mod runtime;
mod stages;
mod taps;
mod threads;

pub use config::{CpuConfig, CpuPrecision, Matrix, Observer};
pub use dinov2_kernels::Isa;
pub use engine::CpuEngine;
pub use incremental::Incremental;
pub use load::LoadError;
pub use runtime::BACKEND;
pub use stages::{Stage, StageTimes};
pub use threads::{CpuGrant, default_threads};
