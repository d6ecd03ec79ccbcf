//! The GPU engine: which GPUs there are, and the time of a frame on the most capable one.
//!
//!     cargo run --release -p dinov2-edge --example gpu [PART_OF_THE_GPU'S_NAME]
//!
//! Needs a Vulkan, Metal or DirectX 12 driver. The first frame on a device takes longer: its kernels are measured and chosen.

use std::time::Instant;

use dinov2_edge::{
    Backend, Engine, EngineConfig, Extractor, Features, ImageView, Precision, SelectedEngine, Taps,
};

fn main() -> anyhow::Result<()> {
    for gpu in dinov2_edge::gpu::adapters() {
        println!(
            "{} ({}, {}){}",
            gpu.name,
            gpu.api,
            gpu.driver,
            if gpu.software { ": software" } else { "" }
        );
    }
    // `Backend::Auto` takes the GPU only where it is faster than the CPU, and falls back to the CPU.
    let config = EngineConfig {
        backend: Backend::Wgpu,
        precision: Precision::Auto,
        gpu: std::env::args().nth(1),
        ..EngineConfig::default()
    };
    let mut engine = match SelectedEngine::open(&dinov2_bundled::bundled_model()?.into(), config) {
        Ok(engine) => engine,
        Err(error) => {
            println!("no GPU engine here: {:#}", anyhow::Error::from(error));
            return Ok(());
        }
    };
    println!("{}", engine.facts());
    let (pixels, mut features) = (vec![127; 224 * 224 * 3], Features::new());
    for _ in 0..5 {
        let began = Instant::now();
        engine.extract(ImageView::new(&pixels, 224, 224)?, &Taps::none(), &mut features)?;
        println!("{} patches in {:.1?}", features.grid().len(), began.elapsed());
    }
    Ok(())
}
