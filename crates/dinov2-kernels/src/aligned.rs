use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

/// One cache line: also the widest vector load.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

/// A buffer of f32 that starts on a cache line, zeroed when it grows. Dereferences to a slice.
#[derive(Clone, Default)]
pub struct AlignedBuffer {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBuffer {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.resize(len);
        buffer
    }

    /// Changes the length; memory is only taken when it grows beyond what was ever asked for. Values beyond the old
    /// length are unspecified (zero or left from earlier use).
    pub fn resize(&mut self, len: usize) {
        let lines = len.div_ceil(LINE);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0.0; LINE]));
        }
        self.len = len;
    }
}

#[expect(unsafe_code, reason = "views cache lines as the floats that they consist of")]
impl Deref for AlignedBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `Line` is 16 f32 without padding (64 bytes, align 64), so `lines` is a contiguous run of
        // `lines.len() * 16 >= len` initialised f32.
        unsafe { core::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

#[expect(unsafe_code, reason = "views cache lines as the floats that they consist of")]
impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; the borrow of `self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
