//! The engine: frames are uploaded as u8 pixels, run through the steps of a plan and read back, up to [`FRAMES_IN_FLIGHT`] at a time.
//!
//! Plans, buffers and the next frame's commands are kept from frame to frame. It does not resize images and does not fall back to the
//! CPU.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dinov2_core::{ExtractError, Extractor, Features, ImageView, PatchGrid, Taps, VitSpec, limits};
use dinov2_weights::Model;
use wgpu::{
    Buffer, BufferAsyncError, BufferUsages, CommandBuffer, MapMode, PollError, PollType, SubmissionIndex,
};

use crate::activations::Activations;
use crate::kernels::Real;
use crate::layout::Layout;
use crate::plan::{Parts, Place, Places, Plan, Purpose};
use crate::profile::{Profile, StageTimes};
use crate::weights::{Numbers, Weights};
use crate::{Gpu, GpuError};

/// Frames that may be submitted before the first is received: one that computes, one that is uploaded or read.
pub const FRAMES_IN_FLIGHT: usize = 2;
/// Longest time for a frame on a GPU. Most drivers reset a hanging device sooner. Software drivers have no limit: they are only
/// slow.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// Grids whose plans are kept. Folders of pictures rarely mix more aspect ratios than this within a short run.
const PLANS: usize = 8;

/// Arithmetic of the transformer blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GpuPrecision {
    /// 32-bit floats throughout.
    F32,
    /// Activations and float weights in 16 bits, the residual stream and every long sum in 32.
    F16,
    /// 8-bit matrices with dynamic scales per token; the rest in f16 where the device has it, else in f32.
    Int8,
}

/// Runs a model on a GPU.
pub struct WgpuEngine {
    gpu: Gpu,
    spec: VitSpec,
    layout: Layout,
    precision: GpuPrecision,
    numbers: Numbers,
    weights: Weights,
    activations: Option<Activations>,
    /// The most recently used comes last.
    plans: Vec<Plan>,
    /// Buffers that results are read from, free ones.
    readbacks: Vec<Buffer>,
    /// The last plan's next frame, encoded before there is an image.
    ahead: Option<Encoded>,
    in_flight: VecDeque<InFlight>,
    profile: Profile,
    /// Of the last frame received.
    host_times: HostTimes,
}

/// Time that the host spent on a frame, waiting excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostTimes {
    /// Before the device could begin and after it had ended: upload, submission, readback; encoding, where it was not done
    /// ahead.
    pub in_the_way: Duration,
    /// Encoding of the next frame, while the device computed.
    pub ahead: Duration,
}

/// A frame's commands and where they write its results.
struct Encoded {
    commands: CommandBuffer,
    readback: Buffer,
}

/// A submitted frame.
struct InFlight {
    submission: SubmissionIndex,
    mapped: mpsc::Receiver<Result<(), BufferAsyncError>>,
    readback: Buffer,
    purpose: Purpose,
    places: Places,
    host_times: HostTimes,
}

impl WgpuEngine {
    /// Uploads a model file's weights, quantized ones as they are.
    ///
    /// # Errors
    /// A precision that the device does not have, a model file that does not yield a tensor, or one that is too large.
    pub fn new(gpu: &Gpu, model: &Model, precision: GpuPrecision) -> Result<Self, GpuError> {
        let real = match precision {
            GpuPrecision::F32 => Real::F32,
            GpuPrecision::F16 if gpu.facts().f16 => Real::F16,
            GpuPrecision::F16 => return Err(GpuError::NoF16 { adapter: gpu.facts().name.clone() }),
            GpuPrecision::Int8 if gpu.facts().f16 => Real::F16,
            GpuPrecision::Int8 => Real::F32,
        };
        let numbers = Numbers { real, int8: precision == GpuPrecision::Int8 };
        let spec = model.spec().clone();
        let layout = Layout::new(&spec);
        Ok(Self {
            weights: Weights::upload(gpu, model, &layout, numbers)?,
            gpu: gpu.clone(),
            spec,
            layout,
            precision,
            numbers,
            activations: None,
            plans: Vec::new(),
            readbacks: Vec::new(),
            ahead: None,
            in_flight: VecDeque::new(),
            profile: Profile::new(),
            host_times: HostTimes::default(),
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Arithmetic in use.
    pub fn precision(&self) -> GpuPrecision {
        self.precision
    }

    /// Measures every stage of the frames to come, at some cost to the frame as a whole. Without timestamps on the device
    /// nothing is measured.
    pub fn set_profiling(&mut self, on: bool) {
        self.drop_ahead();
        self.profile.set(&self.gpu, on);
    }

    /// Where the last measured frame's time went on the device.
    pub fn stage_times(&self) -> Option<&StageTimes> {
        self.profile.times()
    }

    /// What the host did for the last frame received.
    pub fn host_times(&self) -> HostTimes {
        self.host_times
    }

    /// Frames that were submitted and not yet received.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Uploads a frame and starts its work; [`Self::receive`] yields frames in the order of their submission. Uploading,
    /// computing and reading of up to [`FRAMES_IN_FLIGHT`] frames overlap. [`Extractor::extract`] abandons them.
    ///
    /// # Errors
    /// As [`Extractor::extract`], or too many frames are in flight.
    pub fn submit(&mut self, image: ImageView<'_>, taps: &Taps) -> Result<(), ExtractError> {
        taps.check(&self.spec)?;
        if self.in_flight.len() == FRAMES_IN_FLIGHT {
            let message = format!("submit: expected less than {FRAMES_IN_FLIGHT} frames in flight");
            return Err(ExtractError::Misuse(message));
        }
        let grid = self.grid_of(&image)?;
        self.gpu.check()?;
        self.prepare(Purpose { grid, taps: taps.clone() })?;
        let frame = self.start(image)?;
        self.in_flight.push_back(frame);
        Ok(())
    }

    /// Waits for the oldest frame in flight and writes its features.
    ///
    /// # Errors
    /// A device that was lost or does not answer, or no frame is in flight.
    pub fn receive(&mut self, out: &mut Features) -> Result<(), ExtractError> {
        let spec = self.spec.clone();
        self.receive_with(|frame, bytes| {
            let Purpose { grid, taps } = &frame.purpose;
            out.prepare(&spec, *grid, taps);
            copy_rows(bytes, &frame.places.tokens, out.tokens_mut());
            for (tap, place) in taps.iter().zip(&frame.places.taps) {
                if let Some(values) = out.tap_mut(tap) {
                    copy_rows(bytes, place, values);
                }
            }
        })
    }

    fn receive_with(&mut self, read: impl FnOnce(&InFlight, &[u8])) -> Result<(), ExtractError> {
        let Some(frame) = self.in_flight.pop_front() else {
            return Err(ExtractError::Misuse("receive: expected a frame in flight, got none".into()));
        };
        self.wait(&frame)?;
        let begun = Instant::now();
        {
            let view = frame.readback.get_mapped_range(0..frame.places.bytes);
            read(&frame, &view.map_err(|error| GpuError::Driver(error.to_string()))?);
        }
        frame.readback.unmap();
        let HostTimes { in_the_way, ahead } = frame.host_times;
        self.host_times = HostTimes { in_the_way: in_the_way + begun.elapsed(), ahead };
        self.profile.read(&self.gpu)?;
        self.readbacks.push(frame.readback);
        Ok(())
    }

    /// Waits for submitted frames and drops their results, as after a batch with an invalid image.
    fn abandon(&mut self) -> Result<(), ExtractError> {
        while !self.in_flight.is_empty() {
            self.receive_with(|_, _| {})?;
        }
        Ok(())
    }

    fn grid_of(&self, image: &ImageView<'_>) -> Result<PatchGrid, ExtractError> {
        let grid = image.grid(self.spec.patch_size)?;
        if grid.len() > limits::MAX_PATCHES {
            return Err(ExtractError::TooManyPatches { patches: grid.len(), most: limits::MAX_PATCHES });
        }
        Ok(grid)
    }

    /// Makes the plan of this grid the last of the plans.
    fn prepare(&mut self, purpose: Purpose) -> Result<(), ExtractError> {
        if self.plans.last().is_some_and(|last| last.purpose == purpose) {
            return Ok(());
        }
        self.drop_ahead();
        if let Some(found) = self.plans.iter().position(|plan| plan.purpose == purpose) {
            self.plans[found..].rotate_left(1);
            return Ok(());
        }
        let grid = purpose.grid;
        let known = self.activations.take().filter(|activations| activations.has_room(&self.layout, grid));
        let activations = match known {
            Some(activations) => activations,
            None => {
                // Their bindings are of the buffers that are about to be replaced.
                self.plans.clear();
                Activations::new(&self.gpu, &self.layout, self.numbers, grid)?
            }
        };
        let activations = self.activations.insert(activations);
        if self.plans.len() == PLANS {
            self.plans.remove(0);
        }
        let parts = Parts {
            gpu: &self.gpu,
            spec: &self.spec,
            layout: &self.layout,
            numbers: self.numbers,
            weights: &self.weights,
            activations,
        };
        self.plans.push(Plan::new(parts, purpose)?);
        self.gpu.save_pipelines();
        Ok(())
    }

    /// Runs the last plan on an image. What the next frame of this plan will run is encoded while this one computes.
    fn start(&mut self, image: ImageView<'_>) -> Result<InFlight, GpuError> {
        let begun = Instant::now();
        let Encoded { commands, readback } = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.encode()?,
        };
        let (Some(plan), Some(activations)) = (self.plans.last(), &self.activations) else {
            return Err(no_plan());
        };
        write_pixels(&self.gpu, &activations.pixels, image.pixels());
        let submission = self.gpu.queue().submit([commands]);
        let (sender, mapped) = mpsc::channel();
        readback.map_async(MapMode::Read, 0..plan.places.bytes, move |outcome| {
            // The receiver is gone if the engine is.
            let _ = sender.send(outcome);
        });
        self.gpu.check()?;
        let (purpose, places) = (plan.purpose.clone(), plan.places.clone());
        let in_the_way = begun.elapsed();
        if !self.profile.is_on() {
            self.ahead = Some(self.encode()?);
        }
        let host_times = HostTimes { in_the_way, ahead: begun.elapsed() - in_the_way };
        Ok(InFlight { submission, mapped, readback, purpose, places, host_times })
    }

    /// Encodes a frame of the last plan.
    fn encode(&mut self) -> Result<Encoded, GpuError> {
        let (Some(plan), Some(activations)) = (self.plans.last(), &self.activations) else {
            return Err(no_plan());
        };
        let bytes = plan.places.bytes;
        let readback = match self.readbacks.pop().filter(|buffer| buffer.size() >= bytes) {
            Some(buffer) => buffer,
            None => self.gpu.buffer("readback", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?,
        };
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let tokens = &activations.tokens;
        encoder.copy_buffer_to_buffer(&plan.initial, 0, tokens, 0, plan.initial.size().min(tokens.size()));
        self.profile.encode(&plan.steps, &mut encoder);
        encoder.copy_buffer_to_buffer(&plan.results, 0, &readback, 0, bytes);
        Ok(Encoded { commands: encoder.finish(), readback })
    }

    /// Drops the commands that were encoded ahead, because the next frame uses another plan.
    fn drop_ahead(&mut self) {
        if let Some(Encoded { readback, .. }) = self.ahead.take() {
            self.readbacks.push(readback);
        }
    }

    fn wait(&self, frame: &InFlight) -> Result<(), GpuError> {
        let timeout = (!self.gpu.facts().software).then_some(FRAME_TIMEOUT);
        match self
            .gpu
            .device()
            .poll(PollType::Wait { submission_index: Some(frame.submission.clone()), timeout })
        {
            Ok(_) => {}
            Err(PollError::Timeout) => return Err(GpuError::Timeout { seconds: FRAME_TIMEOUT.as_secs() }),
            Err(error) => return Err(GpuError::Driver(error.to_string())),
        }
        self.gpu.check()?;
        // The mapping was requested with the submission, so it is complete after polling. Its callback may still be pending on another
        // thread that polls the same device.
        match frame.mapped.recv_timeout(FRAME_TIMEOUT) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(GpuError::Lost(error.to_string())),
            Err(error) => Err(GpuError::Driver(format!("readback: {error}"))),
        }
    }
}

/// Writes bytes to the start of a buffer; copies are in whole words.
fn write_pixels(gpu: &Gpu, buffer: &Buffer, pixels: &[u8]) {
    let (whole, rest) = pixels.split_at(pixels.len() & !3);
    if !whole.is_empty() {
        gpu.queue().write_buffer(buffer, 0, whole);
    }
    if !rest.is_empty() {
        let mut word = [0; 4];
        word[..rest.len()].copy_from_slice(rest);
        gpu.queue().write_buffer(buffer, whole.len() as u64, &word);
    }
}

fn no_plan() -> GpuError {
    GpuError::Driver("no plan for this frame".into())
}

fn copy_rows(bytes: &[u8], place: &Place, out: &mut [f32]) {
    let start = place.offset as usize;
    let bytes = &bytes[start..start + 4 * place.rows * place.stride];
    let rows = bytes.chunks_exact(4 * place.stride).zip(out.chunks_exact_mut(place.width));
    for (from, to) in rows {
        bytemuck::cast_slice_mut(to).copy_from_slice(&from[..4 * place.width]);
    }
}

impl Extractor for WgpuEngine {
    fn spec(&self) -> &VitSpec {
        &self.spec
    }

    fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError> {
        self.abandon()?;
        self.submit(image, taps)?;
        self.receive(out)
    }

    /// Uploads, computation and readback of neighbouring images overlap.
    fn extract_batch(
        &mut self,
        images: &[ImageView<'_>],
        taps: &Taps,
        out: &mut [Features],
    ) -> Result<(), ExtractError> {
        ExtractError::check_lengths(images, out)?;
        self.abandon()?;
        let mut out = out.iter_mut();
        for image in images {
            if self.in_flight.len() == FRAMES_IN_FLIGHT
                && let Some(out) = out.next()
            {
                self.receive(out)?;
            }
            self.submit(*image, taps)?;
        }
        out.try_for_each(|out| self.receive(out))
    }
}
