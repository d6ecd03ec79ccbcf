//! Handles by which other threads stop and watch a live source.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Losses;

/// Most notes that are kept until they are taken.
const MAX_NOTES: usize = 64;

/// A signal to stop, which cannot be reset. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StopSignal {
    shared: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Signal {
    stopped: Mutex<bool>,
    changed: Condvar,
    /// Written once and never read, so that every thread that polls the other end wakes up.
    pipe: Option<PipeWriter>,
}

impl StopSignal {
    /// Also returns the end of a pipe that becomes readable on stop, for threads that poll several descriptors.
    ///
    /// # Errors
    /// If the system cannot create a pipe.
    pub fn with_pipe() -> io::Result<(Self, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let signal = Signal { pipe: Some(writer), ..Signal::default() };
        Ok((Self { shared: Arc::new(signal) }, reader))
    }

    /// Sets the signal and wakes all waiting threads.
    pub fn stop(&self) {
        let before = std::mem::replace(&mut *self.stopped(), true);
        self.shared.changed.notify_all();
        if let (false, Some(pipe)) = (before, &self.shared.pipe) {
            // Fails only if the other end is closed.
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

    /// Sleeps until `until`. Returns false immediately on stop.
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

/// Handle of a live source for other threads, while its own thread waits for a frame. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LiveHandle {
    stop: StopSignal,
    state: Arc<Mutex<LiveState>>,
}

#[derive(Debug, Default)]
struct LiveState {
    losses: Losses,
    notes: Vec<String>,
    is_down: bool,
}

impl LiveHandle {
    /// The handle of a source that ends on `stop`.
    pub fn new(stop: StopSignal) -> Self {
        Self { stop, state: Arc::default() }
    }

    /// The signal after which [`crate::Source::next_frame`] soon returns false.
    pub fn stop_signal(&self) -> &StopSignal {
        &self.stop
    }

    /// Losses since the source was opened.
    pub fn losses(&self) -> Losses {
        self.with(|state| state.losses)
    }

    /// Notes for the user, such as that a camera was unplugged or is back. Each is returned once.
    pub fn take_notes(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.notes))
    }

    /// False while the source has no frames and tries to recover.
    pub fn is_up(&self) -> bool {
        self.with(|state| !state.is_down)
    }

    /// For sources: sets whether frames are available.
    pub fn set_up(&self, is_up: bool) {
        self.with(|state| state.is_down = !is_up);
    }

    /// For sources: changes the losses.
    pub fn count(&self, change: impl FnOnce(&mut Losses)) {
        self.with(|state| change(&mut state.losses));
    }

    /// For sources: adds a note.
    pub fn note(&self, note: String) {
        self.with(|state| {
            if state.notes.len() < MAX_NOTES {
                state.notes.push(note);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut LiveState) -> T) -> T {
        // Every change is a single step, so a thread that panicked left nothing half done.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
