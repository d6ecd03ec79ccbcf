//! What other threads do with a camera that its own thread waits for.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Losses;

/// Stops a camera from any thread: its `next_frame` returns false from now on, at once if it is waiting.
#[derive(Clone, Debug)]
pub struct Stopper {
    signal: Arc<Signal>,
}

#[derive(Debug)]
struct Signal {
    stopped: AtomicBool,
    /// Written once and never read, so that everybody who waits for the other end wakes up.
    pipe: PipeWriter,
}

impl Stopper {
    #[allow(dead_code, reason = "used where there are cameras")]
    /// With the end that is waited for.
    pub(super) fn new() -> io::Result<(Self, PipeReader)> {
        let (reader, pipe) = io::pipe()?;
        Ok((Self { signal: Arc::new(Signal { stopped: AtomicBool::new(false), pipe }) }, reader))
    }

    /// Stops the camera for good.
    pub fn stop(&self) {
        if !self.signal.stopped.swap(true, Ordering::SeqCst) {
            // Fails only once the camera is gone.
            let _ = (&self.signal.pipe).write(&[1]);
        }
    }

    /// True from the first [`Self::stop`] on.
    pub fn is_stopped(&self) -> bool {
        self.signal.stopped.load(Ordering::SeqCst)
    }
}

/// Tells how a camera is doing while another thread waits for its next frame.
#[derive(Clone, Debug, Default)]
pub struct CameraMonitor {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    notes: Vec<String>,
    losses: Losses,
    is_up: bool,
}

#[allow(dead_code, reason = "used where there are cameras")]
/// Most notes that are kept for somebody who may never ask.
const MAX_NOTES: usize = 64;

impl CameraMonitor {
    /// What a person should hear: outages, when they begin and when they end. Each is returned once, here or by the
    /// camera itself.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().notes)
    }

    /// What was lost since the camera was opened.
    pub fn losses(&self) -> Losses {
        self.state().losses
    }

    /// False during an outage.
    pub fn is_up(&self) -> bool {
        self.state().is_up
    }

    #[allow(dead_code, reason = "used where there are cameras")]
    pub(super) fn note(&self, note: String) {
        let notes = &mut self.state().notes;
        if notes.len() < MAX_NOTES {
            notes.push(note);
        }
    }

    #[allow(dead_code, reason = "used where there are cameras")]
    pub(super) fn update(&self, losses: Losses, is_up: bool) {
        let mut state = self.state();
        (state.losses, state.is_up) = (losses, is_up);
    }

    /// The state is whole between any two statements, so a thread that panicked has not broken it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
