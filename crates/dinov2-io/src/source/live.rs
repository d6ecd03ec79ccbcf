use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Losses;

/// Most notes that are kept for somebody who may never ask.
const MAX_NOTES: usize = 64;

/// Says once and for all that it is time to stop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StopSignal {
    shared: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Signal {
    stopped: Mutex<bool>,
    changed: Condvar,
    /// Written once and never read, so that everybody who waits for the other end wakes up.
    pipe: Option<PipeWriter>,
}

impl StopSignal {
    /// With the end of a pipe that can be read once it is time to stop, for those who wait for several things.
    ///
    /// # Errors
    /// The system has no pipe.
    pub fn with_pipe() -> io::Result<(Self, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let signal = Signal { pipe: Some(writer), ..Signal::default() };
        Ok((Self { shared: Arc::new(signal) }, reader))
    }

    /// Stops whoever asks, sleeps or waits.
    pub fn stop(&self) {
        let before = std::mem::replace(&mut *self.stopped(), true);
        self.shared.changed.notify_all();
        if let (false, Some(pipe)) = (before, &self.shared.pipe) {
            // Fails only where nobody waits any more.
            let _ = (&*pipe).write(&[1]);
        }
    }

    /// True after [`Self::stop`].
    pub fn is_stopped(&self) -> bool {
        *self.stopped()
    }

    fn stopped(&self) -> MutexGuard<'_, bool> {
        self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until `until`. False, at once, when it is time to stop.
    pub fn sleep_until(&self, until: Instant) -> bool {
        let mut stopped = self.stopped();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if *stopped || left == Duration::ZERO {
                return !*stopped;
            }
            let waited = self.shared.changed.wait_timeout(stopped, left);
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
    /// Of a source that ends by `stop`.
    pub fn new(stop: StopSignal) -> Self {
        Self { stop, told: Arc::default() }
    }

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
        self.with(|told| {
            if told.notes.len() < MAX_NOTES {
                told.notes.push(note);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Told) -> T) -> T {
        // Every change is a single step, so a thread that panicked left nothing half done.
        act(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
