use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::ViewConfig;
use crate::feed::Feed;
use crate::pulse::Pulse;

/// What a viewer may ask of the colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PcaRequest {
    /// Fit basis and range anew on the next frame; what happens afterwards stays as it is.
    Refit,
    /// Keep basis and range from now on.
    Freeze,
    /// Let basis and range follow the frames from now on.
    Follow,
}

/// How the colours behave from frame to frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PcaMode {
    /// Basis and range follow the frames.
    Follow,
    /// Basis and range stay.
    Frozen,
}

/// What the pipeline and the server share.
pub(crate) struct Shared {
    pub(crate) config: ViewConfig,
    /// The address with the port that was really given.
    pub(crate) address: SocketAddr,
    /// One per camera.
    pub(crate) feeds: Vec<Feed>,
    pub(crate) pulse: Mutex<Pulse>,
    wishes: Mutex<Wishes>,
    seats_taken: AtomicUsize,
}

struct Wishes {
    asked: Option<PcaRequest>,
    mode: PcaMode,
}

/// The right to be a client; given back on drop.
pub(crate) struct Seat(Arc<Shared>);

impl Shared {
    pub(crate) fn new(config: ViewConfig, address: SocketAddr) -> Self {
        let feeds = config.cameras.iter().map(|_| Feed::new(config.max_fps)).collect();
        let pulse = Mutex::new(Pulse::new(config.silence_timeout));
        let wishes = Mutex::new(Wishes { asked: None, mode: config.pca });
        Self { config, address, feeds, pulse, wishes, seats_taken: AtomicUsize::new(0) }
    }

    /// None where as many clients are here as may be.
    pub(crate) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let most = self.config.max_clients;
        let one_more = |taken| if taken < most { Some(taken + 1) } else { None };
        let taken = self.seats_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Seat(Arc::clone(self)))
    }

    pub(crate) fn clients(&self) -> usize {
        self.seats_taken.load(Ordering::Relaxed)
    }

    /// A later wish replaces one that was not yet taken.
    pub(crate) fn ask(&self, request: PcaRequest) {
        let mut wishes = lock(&self.wishes);
        wishes.asked = Some(request);
        match request {
            PcaRequest::Refit => {}
            PcaRequest::Freeze => wishes.mode = PcaMode::Frozen,
            PcaRequest::Follow => wishes.mode = PcaMode::Follow,
        }
    }

    pub(crate) fn take_request(&self) -> Option<PcaRequest> {
        lock(&self.wishes).asked.take()
    }

    pub(crate) fn pca_mode(&self) -> PcaMode {
        lock(&self.wishes).mode
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seats_taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Locks; what our locks guard is whole at every moment, so a panic elsewhere does not spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
