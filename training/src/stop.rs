//! Ending a run early with its work kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request to end, shared by whoever asks (a signal handler) and the run.
///
/// A run heeds it once it has work to keep: before, the program can end at once and nothing is lost.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    requested: AtomicBool,
    heeded: AtomicBool,
}

impl Stop {
    /// Asks the run to end. Whether it heeds that: false before it has work to keep.
    pub fn request(&self) -> bool {
        self.0.requested.store(true, Ordering::SeqCst);
        self.0.heeded.load(Ordering::SeqCst)
    }

    /// Whether the run is to end.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }

    /// From now on the run looks at requests.
    pub(crate) fn heed(&self) {
        self.0.heeded.store(true, Ordering::SeqCst);
    }
}
