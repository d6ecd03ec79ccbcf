//! Opening of a device: which adapter, with which features, and whether its matrix units can be trusted.

use std::path::PathBuf;
use std::sync::Mutex;

use wgpu::{DeviceDescriptor, ExperimentalFeatures, Features, Limits, MemoryHints, Trace};

use crate::gpu::{DriverErrors, Gpu, Inner};
use crate::kernels::gemm_cooperative;
use crate::measured::MeasuredProducts;
use crate::pipelines::Pipelines;
use crate::{GpuError, adapter, disk, self_check};

/// Which device to open, and which of its abilities to use.
#[derive(Clone, Debug, Default)]
pub struct GpuConfig {
    /// Part of the adapter's name, whatever the case; `None` for the most capable one.
    pub adapter: Option<String>,
    /// Keep to WebGPU's default limits and features, as the smallest devices have them.
    pub portable: bool,
    /// Folder for compiled pipelines and measured choices; `None` keeps nothing.
    pub cache: Option<PathBuf>,
    /// Whether the first frame of a grid measures which kernels are the fastest on the device.
    pub tuning: Tuning,
    /// Compile shaders with a check of every index, for tests; many times slower.
    pub checked: bool,
}

/// Whether the first frame of a grid times the kernels that can compute each matrix product, or every product takes the first one
/// that the device can run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tuning {
    /// Nothing is timed.
    #[default]
    Off,
    /// Kernels are timed, but not on software drivers.
    Hardware,
    /// Kernels are timed on every device.
    On,
}

impl Gpu {
    /// Opens a device.
    ///
    /// # Errors
    /// No adapter that fits, or a driver that refuses.
    pub fn open(config: &GpuConfig) -> Result<Self, GpuError> {
        pollster::block_on(Self::open_async(config))
    }

    /// As [`Self::open`], for hosts that must not block, such as browsers.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_async(config: &GpuConfig) -> Result<Self, GpuError> {
        let adapter = adapter::choose(config.adapter.as_deref()).await?;
        let mut facts = adapter::facts(&adapter);
        let (features, limits) = if config.portable {
            (Features::empty(), Limits::defaults())
        } else {
            (wanted_features(&adapter), adapter.limits())
        };
        facts.f16 &= features.contains(Features::SHADER_F16);
        let units = gemm_cooperative::offered(&adapter)
            .filter(|_| features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX));
        facts.cooperative_matrix = units.is_some();
        let descriptor = DeviceDescriptor {
            label: Some("dinov2"),
            required_features: features,
            required_limits: limits,
            experimental_features: experimental(features),
            memory_hints: MemoryHints::Performance,
            trace: Trace::Off,
        };
        let opened = adapter.request_device(&descriptor).await;
        let (device, queue) = opened
            .map_err(|error| GpuError::Open { adapter: facts.name.clone(), reason: error.to_string() })?;
        let driver_errors = DriverErrors::default();
        driver_errors.collect_from(&device);
        let cache = config.cache.as_deref().map(|root| disk::Folder::new(root, &facts));
        let pipelines = Pipelines::new(&device, &adapter.get_info(), cache.as_ref(), config.checked);
        let tunes = match config.tuning {
            Tuning::Off => false,
            Tuning::Hardware => !facts.software,
            Tuning::On => true,
        };
        let measured = cache.as_ref().and_then(|folder| folder.read(MeasuredProducts::FILE));
        let mut gpu = Self::new(Inner {
            device,
            queue,
            facts,
            pipelines: Mutex::new(pipelines),
            driver_errors,
            measured_products: MeasuredProducts::from_json(measured.as_deref()),
            cache,
            units,
            tunes,
        });
        if units.is_some_and(|units| !self_check::units_compute_right(&gpu, units)) {
            // Errors of the attempt are not the caller's.
            let _ = gpu.check();
            gpu.disable_units();
        }
        Ok(gpu)
    }
}

fn wanted_features(adapter: &wgpu::Adapter) -> Features {
    let mut wanted =
        Features::SHADER_F16 | Features::SUBGROUP | Features::TIMESTAMP_QUERY | Features::PIPELINE_CACHE;
    if gemm_cooperative::offered(adapter).is_some() {
        wanted |= Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
    }
    adapter.features() & wanted
}

fn experimental(features: Features) -> ExperimentalFeatures {
    if !features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return ExperimentalFeatures::disabled();
    }
    #[expect(unsafe_code, reason = "cooperative matrices are still experimental in wgpu")]
    // SAFETY: only our own shader uses them, within the sizes that the adapter lists.
    unsafe {
        ExperimentalFeatures::enabled()
    }
}
