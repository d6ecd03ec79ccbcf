use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dinov2_heads::{PcaCommand, PcaFit};
use serde_json::{Value, json};

use crate::ViewConfig;
use crate::feed::Feed;
use crate::pulse::Pulse;

/// Most commands to heads that wait for the pipeline; older ones are dropped.
const MAX_COMMANDS: usize = 64;

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
    commands: Vec<(String, Value)>,
    fit: PcaFit,
}

/// The right to be a client; given back on drop.
pub(crate) struct Seat(Arc<Shared>);

impl Shared {
    pub(crate) fn new(config: ViewConfig, address: SocketAddr) -> Self {
        let feeds = config.cameras.iter().map(|_| Feed::new(config.max_fps)).collect();
        let pulse = Mutex::new(Pulse::new(config.silence_timeout));
        let wishes = Mutex::new(Wishes { commands: Vec::new(), fit: config.pca });
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

    /// Passes a command for a head on to the pipeline.
    pub(crate) fn command(&self, head: String, command: Value) {
        let mut wishes = lock(&self.wishes);
        if wishes.commands.len() == MAX_COMMANDS {
            wishes.commands.remove(0);
        }
        wishes.commands.push((head, command));
    }

    /// Passes a command for the head `pca` on to the pipeline.
    pub(crate) fn command_pca(&self, command: PcaCommand) {
        match command {
            PcaCommand::Refit => {}
            PcaCommand::Freeze => lock(&self.wishes).fit = PcaFit::Frozen,
            PcaCommand::Follow => lock(&self.wishes).fit = PcaFit::Follow,
        }
        self.command("pca".into(), json!(command));
    }

    pub(crate) fn take_commands(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut lock(&self.wishes).commands)
    }

    pub(crate) fn pca_fit(&self) -> PcaFit {
        lock(&self.wishes).fit
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
