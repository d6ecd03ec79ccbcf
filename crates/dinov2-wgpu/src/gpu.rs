//! An open device, shared by the engines that run on it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wgpu::{
    Buffer, BufferDescriptor, BufferUsages, CommandBuffer, Device, DeviceDescriptor, DeviceLostReason,
    ExperimentalFeatures, Features, Limits, MapMode, MemoryHints, PollType, Queue, Trace,
};

use crate::adapter::{self, AdapterFacts};
use crate::choice::{self, Known, Tuning};
use crate::kernels::gemm_cooperative::{self, Units};
use crate::kernels::{Constant, Shader};
use crate::pipelines::{Pipeline, Pipelines};
use crate::{GpuError, disk, self_check};

/// Which device, and how much of it is used.
#[derive(Clone, Debug, Default)]
pub struct GpuConfig {
    /// Part of the adapter's name, whatever the case; `None` for the most capable one.
    pub adapter: Option<String>,
    /// Keep to WebGPU's default limits and features, as the smallest devices have them.
    pub portable: bool,
    /// Folder for compiled pipelines and measured choices; `None` keeps nothing.
    pub cache: Option<PathBuf>,
    /// Whether the first frame of a grid measures which kernels suit the device best.
    pub tuning: Tuning,
    /// Compile shaders with a check of every index, for tests; many times slower.
    pub checked: bool,
}

/// An open device. Clones share it.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
}

struct Inner {
    device: Device,
    queue: Queue,
    facts: AdapterFacts,
    pipelines: Mutex<Pipelines>,
    trouble: Trouble,
    cache: Option<disk::Folder>,
    units: Option<Units>,
    tunes: bool,
    known_products: Known,
}

/// The first thing that went wrong outside of a call that could tell.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<GpuError>>>);

impl Trouble {
    fn report(&self, error: GpuError) {
        let mut first = lock(&self.0);
        // What a lost device causes is told later than the loss, or sooner.
        if first.is_none() || matches!(error, GpuError::Lost(_)) {
            *first = Some(error);
        }
    }
}

/// Another thread's panic does not spoil what these locks guard: whole values.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let trouble = Trouble::default();
        let reporter = trouble.clone();
        device.on_uncaptured_error(Arc::new(move |error| reporter.report(of_driver(error))));
        let reporter = trouble.clone();
        device.set_device_lost_callback(move |reason, message| {
            let reason = match reason {
                DeviceLostReason::Destroyed => "it was shut down",
                DeviceLostReason::Unknown => "the driver gave it up",
            };
            reporter.report(GpuError::Lost(format!("{reason} ({})", message.trim())));
        });
        let cache = config.cache.as_deref().map(|root| disk::Folder::new(root, &facts));
        let pipelines = Pipelines::new(&device, &adapter.get_info(), cache.as_ref(), config.checked);
        let tunes = match config.tuning {
            Tuning::Off => false,
            Tuning::Hardware => !facts.software,
            Tuning::On => true,
        };
        let inner = Inner {
            device,
            queue,
            facts,
            pipelines: Mutex::new(pipelines),
            trouble,
            known_products: choice::known(cache.as_ref().and_then(|folder| folder.read(choice::FILE))),
            cache,
            units,
            tunes,
        };
        let mut gpu = Self { inner: Arc::new(inner) };
        if units.is_some_and(|units| !self_check::units_compute_right(&gpu, units)) {
            // Whatever the driver told of the attempt is not the caller's.
            let _ = gpu.check();
            if let Some(inner) = Arc::get_mut(&mut gpu.inner) {
                (inner.units, inner.facts.cooperative_matrix) = (None, false);
            }
        }
        Ok(gpu)
    }

    /// What is known about the device, as far as it is used.
    pub fn facts(&self) -> &AdapterFacts {
        &self.inner.facts
    }

    /// Shuts the device down, whatever runs on it; every engine that uses it fails from then on.
    pub fn shut_down(&self) {
        self.inner.device.destroy();
    }

    /// Bytes of device memory that are allocated, where the driver's allocator tells.
    pub fn allocated_bytes(&self) -> Option<u64> {
        self.inner.device.generate_allocator_report().map(|report| report.total_allocated_bytes)
    }

    /// What was measured on this device so far: products (number type, rows x k x n, activation) and the kernel that was
    /// fastest.
    pub fn products(&self) -> Vec<(String, String)> {
        lock(&self.inner.known_products).clone().into_iter().collect()
    }

    pub(crate) fn known_products(&self) -> &Known {
        &self.inner.known_products
    }

    pub(crate) fn tunes(&self) -> bool {
        self.inner.tunes
    }

    /// Most invocations that a subgroup may have.
    pub(crate) fn subgroup_lanes(&self) -> u64 {
        u64::from(self.inner.device.adapter_info().subgroup_max_size.max(1))
    }

    /// The device's matrix units.
    pub(crate) fn units(&self) -> Option<Units> {
        self.inner.units
    }

    pub(crate) fn device(&self) -> &Device {
        &self.inner.device
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.inner.queue
    }

    /// What [`Self::keep`] was given under this name, for this device and driver; `None` without a cache.
    pub fn kept(&self, name: &str) -> Option<Vec<u8>> {
        self.inner.cache.as_ref()?.read(name)
    }

    /// Keeps a small file for the next start, beside compiled pipelines. Nothing may depend on it: what cannot be written is
    /// not kept.
    pub fn keep(&self, name: &str, bytes: &[u8]) {
        if let Some(folder) = &self.inner.cache {
            // Without a cache the next start is slower, nothing else.
            let _ = folder.write(name, bytes);
        }
    }

    pub(crate) fn has(&self, feature: Features) -> bool {
        self.inner.device.features().contains(feature)
    }

    /// What went wrong since the last call, if anything did. A loss is told every time, anything else once: a frame that does
    /// not fit into memory does not keep smaller ones from running.
    pub(crate) fn check(&self) -> Result<(), GpuError> {
        let trouble = &self.inner.trouble.0;
        match lock(trouble).clone() {
            None => return Ok(()),
            Some(lost @ GpuError::Lost(_)) => return Err(lost),
            Some(_) => {}
        }
        // It may be what a loss leads to, which is only told when asked.
        let _ = self.inner.device.poll(PollType::Poll);
        let mut trouble = lock(trouble);
        match &*trouble {
            Some(lost @ GpuError::Lost(_)) => Err(lost.clone()),
            _ => trouble.take().map_or(Ok(()), Err),
        }
    }

    /// Bytes that one binding may have.
    pub(crate) fn most_bytes(&self) -> u64 {
        let limits = self.inner.device.limits();
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
    }

    /// A buffer of zeros.
    pub(crate) fn buffer(&self, what: &str, bytes: u64, usage: BufferUsages) -> Result<Buffer, GpuError> {
        let most = self.most_bytes();
        if bytes > most {
            return Err(GpuError::TooLarge { what: what.into(), bytes, most });
        }
        let size = bytes.max(16).next_multiple_of(16);
        let descriptor = BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
        let buffer = self.inner.device.create_buffer(&descriptor);
        self.check().map(|()| buffer)
    }

    /// A buffer that kernels read.
    pub(crate) fn upload(&self, what: &str, bytes: &[u8]) -> Result<Buffer, GpuError> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
        let buffer = self.buffer(what, bytes.len() as u64, usage)?;
        self.inner.queue.write_buffer(&buffer, 0, bytes);
        Ok(buffer)
    }

    /// What a buffer holds by now.
    pub(crate) fn read(&self, buffer: &Buffer) -> Result<Vec<u8>, GpuError> {
        let copy = self.buffer("copy", buffer.size(), BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
        let mut encoder = self.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, buffer.size());
        self.queue().submit([encoder.finish()]);
        // A mapping that fails is told by the range that cannot be had.
        copy.map_async(MapMode::Read, .., |_| {});
        self.time(None)?;
        let bytes = copy.get_mapped_range(..).map_err(|error| GpuError::Driver(error.to_string()))?.to_vec();
        Ok(bytes)
    }

    /// Waits for uploads, so that the host's copies of them are given back.
    pub(crate) fn finish_uploads(&self) -> Result<(), GpuError> {
        self.time(None).map(drop)
    }

    /// Time from submission to the end of all work.
    pub(crate) fn time(
        &self,
        commands: impl IntoIterator<Item = CommandBuffer>,
    ) -> Result<Duration, GpuError> {
        let start = Instant::now();
        self.inner.queue.submit(commands);
        let polled = self.inner.device.poll(PollType::wait_indefinitely());
        polled.map_err(|error| GpuError::Driver(error.to_string()))?;
        self.check().map(|()| start.elapsed())
    }

    /// The compiled shader, from the cache where it is at hand.
    pub(crate) fn pipeline(
        &self,
        shader: &Shader,
        constants: &[Constant],
    ) -> Result<Arc<Pipeline>, GpuError> {
        let pipeline = lock(&self.inner.pipelines).get(&self.inner.device, shader, constants);
        self.check().map(|()| pipeline)
    }

    /// Keeps compiled pipelines for the next start, where the driver lets them be read.
    pub(crate) fn save_pipelines(&self) {
        if let Some(folder) = &self.inner.cache {
            lock(&self.inner.pipelines).save(folder);
        }
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

fn of_driver(error: wgpu::Error) -> GpuError {
    match error {
        wgpu::Error::OutOfMemory { source } => GpuError::OutOfMemory(source.to_string()),
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            GpuError::Driver(description)
        }
    }
}
