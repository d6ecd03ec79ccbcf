//! Buffers that start on a cache line, so that vector loads of a whole line at multiples of its length do not cross into the next.
//!
//! They only grow; numbers that a resize adds are zero.

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

/// One cache line: also the widest vector load.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

const LINE: usize = 64;

/// Numbers that an [`AlignedBuffer`] may hold: every bit pattern is a value, and the alignment divides a cache line.
pub trait Number: Copy + Default + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! numbers {
    ($($number:ty)*) => { $(
        impl sealed::Sealed for $number {}
        impl Number for $number {}
    )* };
}
numbers!(f32 i32 i16 u16 i8 u8);

/// A buffer of numbers that starts on a cache line, zeroed when it grows. Dereferences to a slice.
#[derive(Clone)]
pub struct AlignedBuffer<T: Number = f32> {
    lines: Vec<Line>,
    len: usize,
    numbers: PhantomData<T>,
}

impl<T: Number> Default for AlignedBuffer<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0, numbers: PhantomData }
    }
}

impl<T: Number> AlignedBuffer<T> {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(len);
        buffer
    }

    /// Changes the length; memory is only taken when it grows beyond what was ever asked for. Values beyond the old
    /// length are unspecified (zero or left from earlier use).
    pub fn resize(&mut self, len: usize) {
        let lines = (len * size_of::<T>()).div_ceil(LINE);
        if lines > self.lines.len() {
            self.lines.reserve_exact(lines - self.lines.len());
            self.lines.resize(lines, Line([0; LINE]));
        }
        self.len = len;
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

#[expect(unsafe_code, reason = "views cache lines as the numbers that they consist of")]
impl<T: Number> Deref for AlignedBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `Line` is 64 initialised bytes without padding, aligned beyond any `Number`; `lines` is a contiguous
        // run of at least `len * size_of::<T>()` bytes, and every bit pattern is a `Number`.
        unsafe { core::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

#[expect(unsafe_code, reason = "views cache lines as the numbers that they consist of")]
impl<T: Number> DerefMut for AlignedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the borrow of `self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
/// Bytes as the numbers that they consist of.
///
/// # Panics
/// When the bytes are not aligned for the numbers, or no whole number of them.
#[inline(always)]
#[expect(unsafe_code, reason = "views bytes as numbers")]
pub(crate) fn numbers_of<T: Number>(bytes: &[u8]) -> &[T] {
    assert!(bytes.as_ptr().cast::<T>().is_aligned() && bytes.len().is_multiple_of(size_of::<T>()));
    // SAFETY: aligned, within the slice, and every bit pattern is a `Number`.
    unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) }
}

/// As [`numbers_of`], to write.
///
/// # Panics
/// As [`numbers_of`].
#[inline(always)]
#[expect(unsafe_code, reason = "views bytes as numbers")]
pub(crate) fn numbers_of_mut<T: Number>(bytes: &mut [u8]) -> &mut [T] {
    assert!(bytes.as_ptr().cast::<T>().is_aligned() && bytes.len().is_multiple_of(size_of::<T>()));
    // SAFETY: as in `numbers_of`; the borrow is exclusive.
    unsafe { core::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<T>()) }
}
