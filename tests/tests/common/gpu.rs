use dinov2_wgpu::{Gpu, GpuConfig, GpuError};

/// Set where a missing GPU is a failure: in CI, which installs a software one. `cooperative` calls for matrix units as well.
const REQUIRED: &str = "DINOV2_TEST_GPU";

/// The machine's GPU, or a program that imitates one. Without any the test is skipped, loudly.
pub(crate) fn gpu() -> Option<Gpu> {
    gpu_with(&GpuConfig::default())
}

/// As [`gpu`], opened in this way.
pub(crate) fn gpu_with(config: &GpuConfig) -> Option<Gpu> {
    match Gpu::open(config) {
        Ok(gpu) => {
            let wanted = std::env::var(REQUIRED).is_ok_and(|wanted| wanted == "cooperative");
            assert!(!wanted || config.portable || gpu.facts().cooperative_matrix, "no cooperative matrices");
            Some(gpu)
        }
        Err(GpuError::NoAdapter { .. }) if std::env::var_os(REQUIRED).is_none() => {
            eprintln!(
                "SKIPPED: no GPU driver here (Debian: apt install mesa-vulkan-drivers for a software one)"
            );
            None
        }
        Err(error) => panic!("{error}"),
    }
}
