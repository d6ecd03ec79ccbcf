//! What the pool synchronises with: `std`, or under `cfg(loom)` the model checker's replacements of the same names.
//!
//! Accesses through [`UnsafeCell`] are closures, because the model checker has to see where an access begins and ends.

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell,
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence},
    sync::{Arc, Mutex},
    thread,
};

#[cfg(not(loom))]
pub(super) use {
    core::hint::spin_loop,
    core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence},
    std::sync::{Arc, Mutex},
    std::thread,
};

/// [`core::cell::UnsafeCell`] with the model checker's methods.
#[cfg(not(loom))]
pub(super) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(super) fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Calls `access` with a pointer to the value for reading.
    #[inline(always)]
    pub(super) fn with<R>(&self, access: impl FnOnce(*const T) -> R) -> R {
        access(self.0.get())
    }

    /// Calls `access` with a pointer to the value for writing.
    #[inline(always)]
    pub(super) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}
