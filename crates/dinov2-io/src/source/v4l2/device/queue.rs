//! The buffers of a streaming device. Each is either in the driver's queue or owned by the caller as a [`Filled`].

#![expect(unsafe_code, reason = "reads buffers that the driver has given")]

use std::io;
use std::ops::Range;
use std::time::Duration;

use super::abi::{self, BUF_TYPE_CAPTURE_MPLANE};
use super::ffi::{Device, Mapping, zeroed};

/// One buffer is filled, one is converted, and two absorb jitter.
const BUFFERS: u32 = 4;
/// Most bytes of a plane: RGB of the largest frame.
const MAX_PLANE_BYTES: u32 = 3 << 28;

/// A device with its buffers, streaming. Exporting them (`VIDIOC_EXPBUF`) would need an index and a plane only.
#[derive(Debug)]
pub(super) struct Queue {
    device: Device,
    /// Type of the buffers.
    kind: u32,
    /// One mapping per plane, of each buffer.
    buffers: Vec<Vec<Mapping>>,
}

/// A filled buffer. Its owner may read it.
#[derive(Debug)]
pub(super) struct Filled {
    index: usize,
    /// What is filled of the first two planes.
    payload: [Range<usize>; 2],
    /// Number of the frame, by the driver.
    pub(super) sequence: u32,
    /// On the clock of [`super::ffi::monotonic_now`], if the driver uses that one.
    pub(super) captured: Option<Duration>,
    /// The driver says that the pixels are wrong.
    pub(super) faulty: bool,
}

impl Queue {
    /// Maps the buffers, puts all into the queue and starts the stream.
    pub(super) fn start(device: Device, kind: u32) -> io::Result<Self> {
        let mut request: abi::RequestBuffers = zeroed();
        (request.count, request.kind, request.memory) = (BUFFERS, kind, abi::MEMORY_MMAP);
        device.call(abi::REQBUFS, &mut request)?;
        if request.count == 0 {
            return Err(io::Error::other("the driver has no memory for buffers"));
        }
        let mut queue = Self { device, kind, buffers: Vec::new() };
        for index in 0..request.count {
            let mappings = queue.map(index)?;
            queue.buffers.push(mappings);
            queue.device.call_buffer(abi::QBUF, kind, index)?;
        }
        queue.device.call(abi::STREAMON, &mut (kind as i32))?;
        Ok(queue)
    }

    fn map(&self, index: u32) -> io::Result<Vec<Mapping>> {
        let (buffer, planes) = self.device.call_buffer(abi::QUERYBUF, self.kind, index)?;
        let planes = planes.iter().take(buffer.length as usize);
        let map = |plane: &abi::Plane| {
            if plane.length == 0 || plane.length > MAX_PLANE_BYTES {
                return Err(io::Error::other(format!("the driver offers buffers of {} bytes", plane.length)));
            }
            self.device.map(plane.offset, plane.length as usize)
        };
        planes.map(map).collect()
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Number of buffers.
    pub(super) fn len(&self) -> usize {
        self.buffers.len()
    }

    /// The oldest buffer that is filled; None if none is.
    pub(super) fn take(&mut self) -> io::Result<Option<Filled>> {
        let (buffer, planes) = match self.device.call_buffer(abi::DQBUF, self.kind, 0) {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let index = buffer.index as usize;
        let mappings = self.buffers.get(index).ok_or_else(|| io::Error::other("an unknown buffer"))?;
        let mut payload = [0..0, 0..0];
        for ((payload, plane), mapping) in payload.iter_mut().zip(&planes).zip(mappings) {
            let end = (plane.bytes_used as usize).min(mapping.len());
            let start = if self.kind == BUF_TYPE_CAPTURE_MPLANE { plane.data_offset as usize } else { 0 };
            *payload = start.min(end)..end;
        }
        let monotonic = buffer.flags & abi::BUF_FLAG_TIMESTAMP_MASK == abi::BUF_FLAG_TIMESTAMP_MONOTONIC;
        let micros = u64::try_from(buffer.seconds)
            .ok()
            .zip(u64::try_from(buffer.microseconds).ok())
            .and_then(|(seconds, micros)| seconds.checked_mul(1_000_000)?.checked_add(micros));
        Ok(Some(Filled {
            index,
            payload,
            sequence: buffer.sequence,
            captured: micros.filter(|_| monotonic).map(Duration::from_micros),
            faulty: buffer.flags & abi::BUF_FLAG_ERROR != 0,
        }))
    }

    /// Content of a buffer by planes.
    pub(super) fn payload(&self, filled: &Filled) -> [&[u8]; 2] {
        let mappings = &self.buffers[filled.index];
        [0, 1].map(|plane| {
            let Some(mapping) = mappings.get(plane) else { return &[][..] };
            // SAFETY: the driver took the buffer out of its queue to make the `Filled`, which is used up by putting
            // the buffer back.
            let bytes = unsafe { mapping.bytes() };
            &bytes[filled.payload[plane].clone()]
        })
    }

    /// Lets the driver fill the buffer again.
    pub(super) fn give_back(&mut self, filled: Filled) -> io::Result<()> {
        self.device.call_buffer(abi::QBUF, self.kind, filled.index as u32).map(|_| ())
    }
}
