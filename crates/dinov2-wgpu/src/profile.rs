//! Times of single stages, by the device's own clock.

use std::sync::mpsc;
use std::time::Duration;

use wgpu::{
    Buffer, BufferUsages, CommandEncoder, ComputePassDescriptor, ComputePassTimestampWrites, Features,
    MapMode, PollType, QuerySet, QuerySetDescriptor, QueryType,
};

use crate::step::{Stage, Step};
use crate::{Gpu, GpuError};

/// Time that a frame spent in each stage on the device.
#[derive(Clone, Debug, Default)]
pub struct StageTimes {
    spent: [Duration; Stage::ALL.len()],
}

impl StageTimes {
    /// Time of one stage.
    pub fn get(&self, stage: Stage) -> Duration {
        self.spent[stage as usize]
    }
}

/// Most dispatches of a frame that are measured: WebGPU's limit of a query set is 4096.
const MOST_STEPS: usize = 2048;

#[derive(Default)]
pub(crate) struct Profile {
    clock: Option<Clock>,
    times: Option<StageTimes>,
}

struct Clock {
    queries: QuerySet,
    resolved: Buffer,
    readback: Buffer,
    /// Stages of the steps of the last encoded frame, until they were read.
    stages: Vec<Stage>,
    period_ns: f64,
}

impl Profile {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn set(&mut self, gpu: &Gpu, on: bool) {
        self.times = None;
        self.clock = if on && gpu.has(Features::TIMESTAMP_QUERY) { Clock::new(gpu).ok() } else { None };
    }

    pub(crate) fn is_on(&self) -> bool {
        self.clock.is_some()
    }

    pub(crate) fn times(&self) -> Option<&StageTimes> {
        self.times.as_ref()
    }

    /// Encodes the steps: in one pass, or in one each where they are measured.
    pub(crate) fn encode(&mut self, steps: &[Step], encoder: &mut CommandEncoder) {
        match &mut self.clock {
            Some(clock) if steps.len() <= MOST_STEPS => clock.encode(steps, encoder),
            _ => {
                let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
                steps.iter().for_each(|step| step.encode(&mut pass));
            }
        }
    }

    /// Reads the times of the frame that was just received.
    pub(crate) fn read(&mut self, gpu: &Gpu) -> Result<(), GpuError> {
        if let Some(clock) = self.clock.as_mut().filter(|clock| !clock.stages.is_empty()) {
            self.times = Some(clock.read(gpu)?);
        }
        Ok(())
    }
}

impl Clock {
    fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let count = 2 * MOST_STEPS as u32;
        let descriptor = QuerySetDescriptor { label: Some("stages"), ty: QueryType::Timestamp, count };
        let bytes = 8 * u64::from(count);
        Ok(Self {
            queries: gpu.device().create_query_set(&descriptor),
            resolved: gpu.buffer(
                "timestamps",
                bytes,
                BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC,
            )?,
            readback: gpu.buffer("timestamps", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?,
            stages: Vec::new(),
            period_ns: f64::from(gpu.queue().get_timestamp_period()),
        })
    }

    fn encode(&mut self, steps: &[Step], encoder: &mut CommandEncoder) {
        for (step, first) in steps.iter().zip((0..).step_by(2)) {
            let timestamp_writes = Some(ComputePassTimestampWrites {
                query_set: &self.queries,
                beginning_of_pass_write_index: Some(first),
                end_of_pass_write_index: Some(first + 1),
            });
            let descriptor = ComputePassDescriptor { label: Some(step.stage.name()), timestamp_writes };
            step.encode(&mut encoder.begin_compute_pass(&descriptor));
        }
        let count = 2 * steps.len() as u32;
        encoder.resolve_query_set(&self.queries, 0..count, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, 8 * u64::from(count));
        self.stages = steps.iter().map(|step| step.stage).collect();
    }

    fn read(&mut self, gpu: &Gpu) -> Result<StageTimes, GpuError> {
        let stages = std::mem::take(&mut self.stages);
        let range = 0..16 * stages.len() as u64;
        let (sender, mapped) = mpsc::channel();
        self.readback.map_async(MapMode::Read, range.clone(), move |outcome| {
            // The receiver is gone if polling failed.
            let _ = sender.send(outcome);
        });
        let failed = |error: String| GpuError::Driver(format!("timestamps: {error}"));
        gpu.device().poll(PollType::wait_indefinitely()).map_err(|error| failed(error.to_string()))?;
        mapped
            .recv()
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        let mut times = StageTimes::default();
        {
            let view = self.readback.get_mapped_range(range).map_err(|error| failed(error.to_string()))?;
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..]);
            for (stage, pair) in stages.iter().zip(ticks.chunks_exact(2)) {
                let ns = pair[1].saturating_sub(pair[0]) as f64 * self.period_ns;
                times.spent[*stage as usize] += Duration::from_nanos(ns as u64);
            }
        }
        self.readback.unmap();
        Ok(times)
    }
}
