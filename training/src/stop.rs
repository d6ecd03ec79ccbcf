//! Stopping a run early without losing its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request to stop, shared by the requester (a signal handler) and the run.
///
/// A run honours requests once it has work to save. Before that, the program can exit at once and nothing is lost.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    requested: AtomicBool,
    heeded: AtomicBool,
}

impl Stop {
    /// Requests the stop. Returns whether the run honours it: false before it has work to save.
    pub fn request(&self) -> bool {
        self.0.requested.store(true, Ordering::SeqCst);
        self.0.heeded.load(Ordering::SeqCst)
    }

    /// Whether a stop is requested.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }

    /// From now on the run honours requests.
    pub(crate) fn heed(&self) {
        self.0.heeded.store(true, Ordering::SeqCst);
    }
}
