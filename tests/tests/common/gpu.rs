use dinov2_wgpu::{Gpu, GpuConfig, GpuError};

/// Set where a missing GPU is a failure: in CI, which installs a software one.
const REQUIRED: &str = "DINOV2_TEST_GPU";

/// The machine's GPU, or a program that imitates one. Without any the test is skipped, loudly.
pub(crate) fn gpu() -> Option<Gpu> {
    gpu_with(&GpuConfig::default())
}

/// As [`gpu`], opened in this way.
pub(crate) fn gpu_with(config: &GpuConfig) -> Option<Gpu> {
    match Gpu::open(config) {
        Ok(gpu) => Some(gpu),
        Err(GpuError::NoAdapter { .. }) if std::env::var_os(REQUIRED).is_none() => {
            eprintln!(
                "SKIPPED: no GPU driver here (Debian: apt install mesa-vulkan-drivers for a software one)"
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}
