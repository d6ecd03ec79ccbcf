//! Everything that needs `unsafe`: requests to the driver, its buffers in our memory, waiting, and its clock.

#![expect(unsafe_code, reason = "ioctl, mmap, poll and clock_gettime")]

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

use super::abi::{
    self, Buffer, ExtControl, ExtControls, Flat, MAX_PLANES, MEMORY_MMAP, Plane, Request, Structure,
};

/// A structure of zeros.
pub(super) fn zeroed<T: Structure>() -> T {
    // SAFETY: every bit pattern of a `Structure` is valid.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// An open device; none of its requests waits.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
}

impl Device {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { file })
    }

    /// Sends a request.
    pub(super) fn call<T: Flat>(&self, request: Request<T>, argument: &mut T) -> io::Result<()> {
        // SAFETY: a `Flat` structure has no addresses in it.
        unsafe { self.call_any(request, argument) }
    }

    /// Sends a request, again if a signal came in between.
    ///
    /// # Safety
    /// Addresses within the argument must be of memory that is as long as the argument says and not in use.
    unsafe fn call_any<T: Structure>(&self, request: Request<T>, argument: &mut T) -> io::Result<()> {
        loop {
            // SAFETY: the type of the request makes the driver read and write no more than a `T`; the caller answers
            // for what the `T` points at.
            let status =
                unsafe { libc::ioctl(self.file.as_raw_fd(), request.number, std::ptr::from_mut(argument)) };
            if status >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Sends a request about a buffer, with room for its planes: those of a device of several planes per buffer.
    pub(super) fn call_buffer(
        &self,
        request: Request<Buffer>,
        kind: u32,
        index: u32,
    ) -> io::Result<(Buffer, [Plane; MAX_PLANES])> {
        let mut planes = [zeroed::<Plane>(); MAX_PLANES];
        let mut buffer: Buffer = zeroed();
        (buffer.kind, buffer.index, buffer.memory) = (kind, index, MEMORY_MMAP);
        let several = kind == abi::BUF_TYPE_CAPTURE_MPLANE;
        if several {
            (buffer.location, buffer.length) = (planes.as_mut_ptr() as u64, MAX_PLANES as u32);
        }
        // SAFETY: `location` is the address of `MAX_PLANES` planes that are in no other use, or no address.
        unsafe { self.call_any(request, &mut buffer)? };
        if !several {
            planes[0].offset = buffer.location as u32;
            (planes[0].length, planes[0].bytes_used) = (buffer.length, buffer.bytes_used);
            buffer.length = 1;
        }
        Ok((buffer, planes))
    }

    /// Reads or writes the value of one control.
    pub(super) fn call_control(&self, request: Request<ExtControls>, id: u32, value: i64) -> io::Result<i64> {
        let mut control: ExtControl = zeroed();
        (control.id, control.value) = (id, value);
        let mut controls: ExtControls = zeroed();
        (controls.count, controls.controls) = (1, std::ptr::from_mut(&mut control) as u64);
        // SAFETY: `controls` holds the address of one control. Controls that carry an address themselves are not asked
        // for: their `size` is zero, which the driver answers with an error.
        unsafe { self.call_any(request, &mut controls)? };
        Ok(control.value)
    }

    /// Maps memory of the driver.
    pub(super) fn map(&self, offset: u32, bytes: usize) -> io::Result<Mapping> {
        // SAFETY: a new mapping, placed by the system.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.file.as_raw_fd(),
                i64::from(offset),
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap returns no null");
        Ok(Mapping { start, bytes })
    }
}

/// A buffer of the driver in our memory.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// The bytes.
    ///
    /// # Safety
    /// The driver must not own the buffer as long as they are borrowed.
    pub(super) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: mapped until dropped, readable, and not written by the driver while the buffer is ours.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `Device::map`, unmapped once; slices borrow the mapping.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Why [`wait`] returned. Nothing is set after a timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Woken {
    /// Somebody stopped the camera.
    pub(super) stop: bool,
    /// A frame is there.
    pub(super) frame: bool,
    /// An event is there.
    pub(super) event: bool,
    /// The device is gone or no longer gives frames.
    pub(super) fault: bool,
}

/// Waits for the stop signal and, if there is one, the device.
pub(super) fn wait(stop: BorrowedFd<'_>, device: Option<&Device>, timeout: Duration) -> io::Result<Woken> {
    let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
    // A negative descriptor is ignored.
    let fd = device.map_or(-1, |device| device.file.as_raw_fd());
    let mut entries = [entry(stop.as_raw_fd(), libc::POLLIN), entry(fd, libc::POLLIN | libc::POLLPRI)];
    let milliseconds = timeout.as_micros().div_ceil(1000).try_into().unwrap_or(i32::MAX);
    // SAFETY: two entries that live through the call.
    let status = unsafe { libc::poll(entries.as_mut_ptr(), 2, milliseconds) };
    if status < 0 {
        let error = io::Error::last_os_error();
        // The caller knows how much time is left.
        return if error.kind() == io::ErrorKind::Interrupted { Ok(Woken::default()) } else { Err(error) };
    }
    let [stop, device] = entries.map(|entry| entry.revents);
    Ok(Woken {
        stop: stop != 0,
        frame: device & libc::POLLIN != 0,
        event: device & libc::POLLPRI != 0,
        fault: device & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0,
    })
}

/// The clock of the drivers' time stamps and of [`std::time::Instant`].
pub(super) fn monotonic_now() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec. The clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
