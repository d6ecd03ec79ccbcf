//! The GPU engine: lists the GPUs, and times frames on the most capable one.
//!
//!     cargo run --release -p dinov2-edge --example gpu [PART_OF_THE_NAME_OF_A_GPU]
//!
//! Needs a Vulkan, Metal or DirectX 12 driver. The first frame on a device takes longer, because it measures which kernels are the
//! fastest. A software driver, which takes a minute for a frame, is used only if it is named.

use std::time::Instant;

use dinov2_edge::gpu::adapters;
use dinov2_edge::{
    Backend, Engine, EngineConfig, Extractor, Features, ImageView, Precision, SelectedEngine, Taps,
};

fn main() -> anyhow::Result<()> {
    let gpus = adapters();
    for gpu in &gpus {
        let kind = if gpu.software { "software" } else { "GPU" };
        println!("{}: {kind}, {}, {}", gpu.name, gpu.api, gpu.driver);
    }
    let most_capable = || gpus.iter().find(|gpu| !gpu.software).map(|gpu| gpu.name.clone());
    let Some(gpu) = std::env::args().nth(1).or_else(most_capable) else {
        println!("no GPU found");
        return Ok(());
    };

    // `Backend::Auto` takes the GPU only where it is faster than the CPU, and falls back to the CPU if it fails.
    let config = EngineConfig {
        backend: Backend::Wgpu,
        precision: Precision::Auto,
        gpu: Some(gpu),
        ..EngineConfig::default()
    };
    let mut engine = SelectedEngine::open(&dinov2_bundled::bundled_model()?.into(), config)?;
    println!("{}", engine.facts());
    let (pixels, mut features) = (vec![127; 224 * 224 * 3], Features::new());
    for _ in 0..5 {
        let began = Instant::now();
        engine.extract(ImageView::new(&pixels, 224, 224)?, &Taps::none(), &mut features)?;
        println!("{} patches in {:.1?}", features.grid().len(), began.elapsed());
    }
    Ok(())
}
