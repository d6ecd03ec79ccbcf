use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Losses;

/// Says once and for all that it is time to stop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StopSignal {
    shared: Arc<(Mutex<bool>, Condvar)>,
}

impl StopSignal {
    /// Stops whoever asks or sleeps.
    pub fn stop(&self) {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.1.notify_all();
    }

    /// True after [`Self::stop`].
    pub fn is_stopped(&self) -> bool {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until `until`. False, at once, when it is time to stop.
    pub fn sleep_until(&self, until: Instant) -> bool {
        let mut stopped = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if *stopped || left == Duration::ZERO {
                return !*stopped;
            }
            let waited = self.shared.1.wait_timeout(stopped, left);
            stopped = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Line to a live source from other threads, while its own waits for a frame.
#[derive(Clone, Debug, Default)]
pub struct LiveHandle {
    stop: StopSignal,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    losses: Losses,
    notes: Vec<String>,
}

impl LiveHandle {
    /// Once it is stopped, [`crate::Source::next_frame`] returns that there are no more frames, soon and from then on.
    pub fn stop_signal(&self) -> &StopSignal {
        &self.stop
    }

    /// What went wrong and was survived, since the source was opened.
    pub fn losses(&self) -> Losses {
        self.with(|told| told.losses)
    }

    /// What a person should hear, such as that a camera has gone or is back. Each is returned once.
    pub fn take_notes(&self) -> Vec<String> {
        self.with(|told| std::mem::take(&mut told.notes))
    }

    /// For sources: counts what was lost.
    pub fn count(&self, change: impl FnOnce(&mut Losses)) {
        self.with(|told| change(&mut told.losses));
    }

    /// For sources: leaves a note.
    pub fn note(&self, note: String) {
        self.with(|told| told.notes.push(note));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Told) -> T) -> T {
        // Every change is a single step, so a thread that panicked left nothing half done.
        act(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
