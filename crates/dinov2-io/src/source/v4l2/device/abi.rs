//! Structures and requests of `linux/videodev2.h`, as 64-bit kernels lay them out.
//!
//! Unions are spelled as the one member that is used, padded to the size of the largest.

use std::marker::PhantomData;

/// A request of `ioctl` with the structure that it reads and writes.
pub(super) struct Request<T> {
    pub(super) number: libc::Ioctl,
    argument: PhantomData<fn(&mut T)>,
}

impl<T> Clone for Request<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Request<T> {}

impl<T> Request<T> {
    const fn reads(number: u32) -> Self {
        Self { number: libc::_IOR::<T>(b'V' as u32, number), argument: PhantomData }
    }

    const fn writes(number: u32) -> Self {
        Self { number: libc::_IOW::<T>(b'V' as u32, number), argument: PhantomData }
    }

    const fn exchanges(number: u32) -> Self {
        Self { number: libc::_IOWR::<T>(b'V' as u32, number), argument: PhantomData }
    }
}

pub(super) const QUERYCAP: Request<Capability> = Request::reads(0);
pub(super) const ENUM_FMT: Request<FormatDescription> = Request::exchanges(2);
pub(super) const S_FMT: Request<Format> = Request::exchanges(5);
pub(super) const S_FMT_MPLANE: Request<FormatMplane> = Request::exchanges(5);
pub(super) const REQBUFS: Request<RequestBuffers> = Request::exchanges(8);
pub(super) const QUERYBUF: Request<Buffer> = Request::exchanges(9);
pub(super) const QBUF: Request<Buffer> = Request::exchanges(15);
pub(super) const DQBUF: Request<Buffer> = Request::exchanges(17);
pub(super) const STREAMON: Request<i32> = Request::writes(18);
pub(super) const G_PARM: Request<StreamParameters> = Request::exchanges(21);
pub(super) const S_PARM: Request<StreamParameters> = Request::exchanges(22);
pub(super) const QUERYMENU: Request<MenuItem> = Request::exchanges(37);
pub(super) const G_INPUT: Request<i32> = Request::reads(38);
pub(super) const G_EXT_CTRLS: Request<ExtControls> = Request::exchanges(71);
pub(super) const S_EXT_CTRLS: Request<ExtControls> = Request::exchanges(72);
pub(super) const ENUM_FRAMESIZES: Request<FrameSize> = Request::exchanges(74);
pub(super) const ENUM_FRAMEINTERVALS: Request<FrameInterval> = Request::exchanges(75);
pub(super) const DQEVENT: Request<Event> = Request::reads(89);
pub(super) const SUBSCRIBE_EVENT: Request<EventSubscription> = Request::writes(90);
pub(super) const QUERY_EXT_CTRL: Request<ControlDescription> = Request::exchanges(103);

pub(super) const CAP_VIDEO_CAPTURE: u32 = 0x1;
pub(super) const CAP_VIDEO_CAPTURE_MPLANE: u32 = 0x1000;
pub(super) const CAP_STREAMING: u32 = 0x0400_0000;
/// `device_caps` is filled in.
pub(super) const CAP_DEVICE_CAPS: u32 = 0x8000_0000;
/// Of a capture parameter: the time per frame can be set.
pub(super) const CAP_TIME_PER_FRAME: u32 = 0x1000;

pub(super) const BUF_TYPE_CAPTURE: u32 = 1;
pub(super) const BUF_TYPE_CAPTURE_MPLANE: u32 = 9;
pub(super) const MEMORY_MMAP: u32 = 1;
pub(super) const BUF_FLAG_ERROR: u32 = 0x40;
pub(super) const BUF_FLAG_TIMESTAMP_MASK: u32 = 0xE000;
pub(super) const BUF_FLAG_TIMESTAMP_MONOTONIC: u32 = 0x2000;
pub(super) const MAX_PLANES: usize = 8;

/// Sizes and intervals are listed one by one; anything else is a range.
pub(super) const DISCRETE: u32 = 1;
pub(super) const FIELD_NONE: u32 = 1;
pub(super) const EVENT_SOURCE_CHANGE: u32 = 5;

pub(super) const COLORSPACE_SMPTE240M: u32 = 2;
pub(super) const COLORSPACE_REC709: u32 = 3;
pub(super) const COLORSPACE_JPEG: u32 = 7;
pub(super) const COLORSPACE_BT2020: u32 = 10;
pub(super) const COLORSPACE_DCI_P3: u32 = 12;
pub(super) const YCBCR_DEFAULT: u32 = 0;
pub(super) const YCBCR_709: u32 = 2;
pub(super) const YCBCR_XV709: u32 = 4;
pub(super) const YCBCR_BT2020: u32 = 6;
pub(super) const YCBCR_BT2020_CONST_LUM: u32 = 7;
pub(super) const YCBCR_SMPTE240M: u32 = 8;
pub(super) const QUANTIZATION_FULL: u32 = 1;
pub(super) const QUANTIZATION_LIMITED: u32 = 2;

pub(super) const CTRL_NEXT: u32 = 0x8000_0000;
pub(super) const CTRL_INTEGER: u32 = 1;
pub(super) const CTRL_BOOLEAN: u32 = 2;
pub(super) const CTRL_MENU: u32 = 3;
pub(super) const CTRL_BUTTON: u32 = 4;
pub(super) const CTRL_INTEGER64: u32 = 5;
pub(super) const CTRL_BITMASK: u32 = 8;
pub(super) const CTRL_INTEGER_MENU: u32 = 9;
pub(super) const CTRL_FLAG_DISABLED: u32 = 0x1;
pub(super) const CTRL_FLAG_READ_ONLY: u32 = 0x4;
pub(super) const CTRL_FLAG_INACTIVE: u32 = 0x10;
pub(super) const CTRL_FLAG_WRITE_ONLY: u32 = 0x40;

#[repr(C)]
pub(super) struct Capability {
    pub(super) driver: [u8; 16],
    pub(super) card: [u8; 32],
    pub(super) bus_info: [u8; 32],
    pub(super) version: u32,
    pub(super) capabilities: u32,
    pub(super) device_caps: u32,
    reserved: [u32; 3],
}

#[repr(C)]
pub(super) struct FormatDescription {
    pub(super) index: u32,
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) description: [u8; 32],
    pub(super) pixel_format: [u8; 4],
    mbus_code: u32,
    reserved: [u32; 3],
}

/// `v4l2_frmsizeenum`; of a discrete size, `range` starts with the width and the height.
#[repr(C)]
pub(super) struct FrameSize {
    pub(super) index: u32,
    pub(super) pixel_format: [u8; 4],
    pub(super) kind: u32,
    /// min, max, step of the width, then of the height.
    pub(super) range: [u32; 6],
    reserved: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Fraction {
    pub(super) numerator: u32,
    pub(super) denominator: u32,
}

/// `v4l2_frmivalenum`; a discrete interval is in `shortest`.
#[repr(C)]
pub(super) struct FrameInterval {
    pub(super) index: u32,
    pub(super) pixel_format: [u8; 4],
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) kind: u32,
    pub(super) shortest: Fraction,
    pub(super) longest: Fraction,
    step: Fraction,
    reserved: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PixelFormat {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixel_format: [u8; 4],
    pub(super) field: u32,
    pub(super) bytes_per_line: u32,
    pub(super) size_image: u32,
    pub(super) colorspace: u32,
    priv_: u32,
    flags: u32,
    pub(super) ycbcr_encoding: u32,
    pub(super) quantization: u32,
    xfer_func: u32,
}

/// `v4l2_format` of a device with one plane per buffer.
#[repr(C, align(8))]
pub(super) struct Format {
    pub(super) kind: u32,
    align: u32,
    pub(super) pixels: PixelFormat,
    rest: [u32; 38],
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(super) struct PlaneFormat {
    pub(super) size_image: u32,
    pub(super) bytes_per_line: u32,
    reserved: [u16; 6],
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(super) struct PixelFormatMplane {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixel_format: [u8; 4],
    pub(super) field: u32,
    pub(super) colorspace: u32,
    pub(super) planes: [PlaneFormat; MAX_PLANES],
    pub(super) num_planes: u8,
    flags: u8,
    pub(super) ycbcr_encoding: u8,
    pub(super) quantization: u8,
    xfer_func: u8,
    reserved: [u8; 7],
}

/// `v4l2_format` of a device with several planes per buffer.
#[repr(C, align(8))]
pub(super) struct FormatMplane {
    pub(super) kind: u32,
    align: u32,
    pub(super) pixels: PixelFormatMplane,
    rest: [u32; 2],
}

/// `v4l2_streamparm` for capturing.
#[repr(C)]
pub(super) struct StreamParameters {
    pub(super) kind: u32,
    pub(super) capability: u32,
    capture_mode: u32,
    pub(super) time_per_frame: Fraction,
    extended_mode: u32,
    read_buffers: u32,
    rest: [u32; 44],
}

#[repr(C)]
pub(super) struct RequestBuffers {
    pub(super) count: u32,
    pub(super) kind: u32,
    pub(super) memory: u32,
    capabilities: u32,
    flags: u8,
    reserved: [u8; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Plane {
    pub(super) bytes_used: u32,
    pub(super) length: u32,
    /// For mmap; the other members of the union are as wide as a pointer.
    pub(super) offset: u32,
    align: u32,
    pub(super) data_offset: u32,
    reserved: [u32; 11],
}

#[repr(C, align(8))]
pub(super) struct Buffer {
    pub(super) index: u32,
    pub(super) kind: u32,
    pub(super) bytes_used: u32,
    pub(super) flags: u32,
    field: u32,
    align: u32,
    pub(super) seconds: i64,
    pub(super) microseconds: i64,
    timecode: [u32; 4],
    pub(super) sequence: u32,
    pub(super) memory: u32,
    /// The offset for mmap, or the address of the planes.
    pub(super) location: u64,
    /// Bytes, or the number of planes.
    pub(super) length: u32,
    reserved: [u32; 2],
}

#[repr(C)]
pub(super) struct ControlDescription {
    pub(super) id: u32,
    pub(super) kind: u32,
    pub(super) name: [u8; 32],
    pub(super) minimum: i64,
    pub(super) maximum: i64,
    pub(super) step: u64,
    pub(super) default: i64,
    pub(super) flags: u32,
    elem_size: u32,
    elems: u32,
    nr_of_dims: u32,
    dims: [u32; 4],
    reserved: [u32; 32],
}

/// `v4l2_querymenu`; of integer menus, `name` starts with the value.
#[repr(C, packed)]
pub(super) struct MenuItem {
    pub(super) id: u32,
    pub(super) index: u32,
    pub(super) name: [u8; 32],
    reserved: u32,
}

/// 32-bit controls use the low half of `value`.
#[repr(C, packed)]
pub(super) struct ExtControl {
    pub(super) id: u32,
    size: u32,
    reserved: u32,
    pub(super) value: i64,
}

#[repr(C)]
pub(super) struct ExtControls {
    which: u32,
    pub(super) count: u32,
    error_index: u32,
    request_fd: i32,
    reserved: u32,
    align: u32,
    /// Address of the controls.
    pub(super) controls: u64,
}

#[repr(C)]
pub(super) struct EventSubscription {
    pub(super) kind: u32,
    pub(super) id: u32,
    flags: u32,
    reserved: [u32; 5],
}

#[repr(C, align(8))]
pub(super) struct Event {
    pub(super) kind: u32,
    rest: [u32; 33],
}

/// A structure whose every bit pattern is valid.
///
/// # Safety
/// Integers only, no padding that the kernel would read.
#[expect(unsafe_code, reason = "a promise about layouts")]
pub(super) unsafe trait Structure: Sized {}

/// A structure without addresses in it, so that the kernel writes nowhere else.
///
/// # Safety
/// As the first line says.
#[expect(unsafe_code, reason = "a promise about layouts")]
pub(super) unsafe trait Flat: Structure {}

macro_rules! structures {
    ($($name:ident $bytes:literal,)*) => { $(
        const _: () = assert!(size_of::<$name>() == $bytes);
        // SAFETY: made of integers only, with its padding spelled out.
        #[expect(unsafe_code, reason = "a promise about layouts")]
        unsafe impl Structure for $name {}
    )* };
}

macro_rules! flat {
    ($($name:ident)*) => { $(
        // SAFETY: none of its integers is an address.
        #[expect(unsafe_code, reason = "a promise about layouts")]
        unsafe impl Flat for $name {}
    )* };
}

// Sizes on x86-64 and aarch64, printed by a C program from linux/videodev2.h.
structures! {
    Capability 104, FormatDescription 64, FrameSize 44, FrameInterval 52, PixelFormat 48, Format 208,
    PlaneFormat 20, PixelFormatMplane 192, FormatMplane 208, StreamParameters 204, RequestBuffers 20, Plane 64,
    Buffer 88, ControlDescription 232, MenuItem 44, ExtControl 20, ExtControls 32, EventSubscription 32, Event 136,
    i32 4,
}

flat! {
    Capability FormatDescription FrameSize FrameInterval Format FormatMplane StreamParameters RequestBuffers
    ControlDescription MenuItem EventSubscription Event i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn requests_are_those_of_the_header() {
        let numbers = [
            (QUERYCAP.number, 0x8068_5600_u32),
            (ENUM_FMT.number, 0xc040_5602),
            (S_FMT.number, 0xc0d0_5605),
            (S_FMT_MPLANE.number, 0xc0d0_5605),
            (REQBUFS.number, 0xc014_5608),
            (QUERYBUF.number, 0xc058_5609),
            (QBUF.number, 0xc058_560f),
            (DQBUF.number, 0xc058_5611),
            (STREAMON.number, 0x4004_5612),
            (G_PARM.number, 0xc0cc_5615),
            (S_PARM.number, 0xc0cc_5616),
            (QUERYMENU.number, 0xc02c_5625),
            (G_INPUT.number, 0x8004_5626),
            (G_EXT_CTRLS.number, 0xc020_5647),
            (S_EXT_CTRLS.number, 0xc020_5648),
            (ENUM_FRAMESIZES.number, 0xc02c_564a),
            (ENUM_FRAMEINTERVALS.number, 0xc034_564b),
            (DQEVENT.number, 0x8088_5659),
            (SUBSCRIBE_EVENT.number, 0x4020_565a),
            (QUERY_EXT_CTRL.number, 0xc0e8_5667),
        ];
        for (number, expected) in numbers {
            assert_eq!(number as u32, expected, "{number:#x}");
        }
    }

    #[test]
    fn fields_lie_where_the_header_puts_them() {
        assert_eq!(offset_of!(Format, pixels), 8);
        assert_eq!(offset_of!(FormatMplane, pixels), 8);
        assert_eq!(offset_of!(PixelFormatMplane, planes), 20);
        assert_eq!(offset_of!(PixelFormatMplane, num_planes), 180);
        assert_eq!(offset_of!(Buffer, seconds), 24);
        assert_eq!(offset_of!(Buffer, sequence), 56);
        assert_eq!(offset_of!(Buffer, memory), 60);
        assert_eq!(offset_of!(Buffer, location), 64);
        assert_eq!(offset_of!(Buffer, length), 72);
        assert_eq!(offset_of!(Plane, offset), 8);
        assert_eq!(offset_of!(Plane, data_offset), 16);
        assert_eq!(offset_of!(ControlDescription, minimum), 40);
        assert_eq!(offset_of!(ControlDescription, flags), 72);
        assert_eq!(offset_of!(ExtControls, controls), 24);
        assert_eq!(offset_of!(FrameSize, range), 12);
        assert_eq!(offset_of!(FrameInterval, shortest), 20);
    }
}
