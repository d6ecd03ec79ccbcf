use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

/// One cache line: also the widest vector load.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

const LINE: usize = 64;

/// Numbers that an [`AlignedBuffer`] may hold: every bit pattern is a value, and the alignment divides a cache line.
pub trait Number: Copy + sealed::Sealed {}

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
