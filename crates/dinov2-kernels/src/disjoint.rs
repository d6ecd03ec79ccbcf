use core::marker::PhantomData;

/// A mutable slice that several tasks write at once, each to places that no other task touches.
///
/// The slice is borrowed for as long as this lives, so nobody else reads it meanwhile.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` whose users promise, per `write_at`/`range`, never to touch an element from two tasks.
#[expect(unsafe_code, reason = "hands one slice to several tasks")]
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// Pointer to element `at`, valid for reads and writes of `len` elements.
    ///
    /// Checks the bounds. Dereferencing is the caller's promise that no other task touches these elements.
    pub(crate) fn range(&self, at: usize, len: usize) -> *mut T {
        assert!(at <= self.len && len <= self.len - at, "range {at}+{len} outside of {}", self.len);
        self.start.wrapping_add(at)
    }

    /// Elements `at..at + len` as a slice.
    ///
    /// # Safety
    /// No other task touches these elements while the slice lives.
    #[expect(unsafe_code, reason = "hands one slice to several tasks")]
    #[expect(clippy::mut_from_ref, reason = "exclusive by the caller's promise")]
    pub(crate) unsafe fn slice(&self, at: usize, len: usize) -> &mut [T] {
        // SAFETY: `range` checked the bounds; exclusivity is the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.range(at, len), len) }
    }
}
