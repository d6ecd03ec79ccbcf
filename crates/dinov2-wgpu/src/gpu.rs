//! An open device, shared by the engines that run on it: buffers, pipelines, submissions, and the errors that the driver reports
//! outside of calls. `open.rs` opens one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wgpu::{
    Buffer, BufferDescriptor, BufferUsages, CommandBuffer, Device, DeviceLostReason, Features, MapMode,
    PollType, Queue,
};

use crate::adapter::AdapterFacts;
use crate::kernels::gemm_cooperative::Units;
use crate::kernels::{Constant, Shader};
use crate::measured::MeasuredProducts;
use crate::pipelines::{Pipeline, Pipelines};
use crate::{GpuError, disk};

/// An open device. Clones share it.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
}

/// What an open device consists of.
pub(crate) struct Inner {
    pub(crate) device: Device,
    pub(crate) queue: Queue,
    pub(crate) facts: AdapterFacts,
    pub(crate) pipelines: Mutex<Pipelines>,
    pub(crate) driver_errors: DriverErrors,
    pub(crate) cache: Option<disk::Folder>,
    pub(crate) units: Option<Units>,
    pub(crate) tunes: bool,
    pub(crate) measured_products: MeasuredProducts,
}

/// The first error that the driver reported outside of a call.
#[derive(Clone, Default)]
pub(crate) struct DriverErrors(Arc<Mutex<Option<GpuError>>>);

impl DriverErrors {
    /// Collects the device's errors from now on.
    pub(crate) fn collect_from(&self, device: &Device) {
        let reporter = self.clone();
        device.on_uncaptured_error(Arc::new(move |error| reporter.report(of_driver(error))));
        let reporter = self.clone();
        device.set_device_lost_callback(move |reason, message| {
            let reason = match reason {
                DeviceLostReason::Destroyed => "it was shut down",
                DeviceLostReason::Unknown => "the driver gave it up",
            };
            reporter.report(GpuError::Lost(format!("{reason} ({})", message.trim())));
        });
    }

    fn report(&self, error: GpuError) {
        let mut first = lock(&self.0);
        // A lost device also causes other errors, which may be reported before the loss.
        if first.is_none() || matches!(error, GpuError::Lost(_)) {
            *first = Some(error);
        }
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

/// Locks. A panic of another thread leaves what these locks guard whole: values are only replaced.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Does without the matrix units.
    ///
    /// # Panics
    /// When the device is shared already.
    pub(crate) fn disable_units(&mut self) {
        let inner = Arc::get_mut(&mut self.inner).expect("not shared before it is open");
        (inner.units, inner.facts.cooperative_matrix) = (None, false);
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
        self.inner.measured_products.list()
    }

    pub(crate) fn measured_products(&self) -> &MeasuredProducts {
        &self.inner.measured_products
    }

    /// Keeps the fastest kernel of a product for this run and the next start.
    pub(crate) fn keep_product(&self, product: String, kernel: String) {
        if let Some(json) = self.inner.measured_products.insert(product, kernel) {
            self.keep(MeasuredProducts::FILE, &json);
        }
    }

    /// Whether products are timed.
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

    /// The driver's first error since the last call. A loss is returned every time, other errors once: after a frame that does not fit
    /// into memory smaller ones can run.
    pub(crate) fn check(&self) -> Result<(), GpuError> {
        let first = &self.inner.driver_errors.0;
        match lock(first).clone() {
            None => return Ok(()),
            Some(lost @ GpuError::Lost(_)) => return Err(lost),
            Some(_) => {}
        }
        // A loss may have caused it; the driver reports a loss only when it is polled.
        let _ = self.inner.device.poll(PollType::Poll);
        let mut first = lock(first);
        match &*first {
            Some(lost @ GpuError::Lost(_)) => Err(lost.clone()),
            _ => first.take().map_or(Ok(()), Err),
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
        // Where mapping fails, `get_mapped_range` does.
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
