//! Which of the machine's GPUs.

use wgpu::{Adapter, Backends, DeviceType, Instance, InstanceDescriptor};

use crate::GpuError;

/// Name, driver and abilities of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterFacts {
    /// Name of the device.
    pub name: String,
    /// Name and version of the driver.
    pub driver: String,
    /// `vulkan`, `metal` or `dx12`.
    pub api: &'static str,
    /// Whether this is a software driver, which computes on the CPU, such as lavapipe.
    pub software: bool,
    /// Whether shaders can compute in f16.
    pub f16: bool,
    /// Whether shaders can multiply f16 matrices cooperatively.
    pub cooperative_matrix: bool,
}

pub(crate) fn facts(adapter: &Adapter) -> AdapterFacts {
    let info = adapter.get_info();
    AdapterFacts {
        name: info.name,
        driver: [info.driver, info.driver_info].join(" ").trim().to_string(),
        api: info.backend.to_str(),
        software: info.device_type == DeviceType::Cpu,
        f16: adapter.features().contains(wgpu::Features::SHADER_F16),
        cooperative_matrix: crate::kernels::gemm_cooperative::offered(adapter).is_some(),
    }
}

/// Every adapter, the most capable first. None where there is no driver.
pub fn adapters() -> Vec<AdapterFacts> {
    pollster::block_on(all()).iter().map(facts).collect()
}

async fn all() -> Vec<Adapter> {
    let instance = Instance::new(InstanceDescriptor {
        backends: Backends::PRIMARY,
        ..InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters = instance.enumerate_adapters(Backends::PRIMARY).await;
    adapters.sort_by_key(|adapter| rank(adapter.get_info().device_type));
    adapters
}

fn rank(device_type: DeviceType) -> u8 {
    match device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

/// The first adapter whose name contains `wanted`, whatever the case; without it the most capable one.
pub(crate) async fn choose(wanted: Option<&str>) -> Result<Adapter, GpuError> {
    let adapters = all().await;
    let names = || adapters.iter().map(|adapter| adapter.get_info().name).collect::<Vec<_>>().join(", ");
    let none = || GpuError::NoAdapter {
        wanted: wanted.map_or("a GPU".into(), |wanted| format!("one named {wanted:?}")),
        found: if adapters.is_empty() { "none".into() } else { names() },
    };
    let matches = |adapter: &&Adapter| {
        let name = adapter.get_info().name.to_lowercase();
        wanted.is_none_or(|wanted| name.contains(&wanted.to_lowercase()))
    };
    adapters.iter().find(matches).cloned().ok_or_else(none)
}
