//! The state that the pipeline and the server share: feeds, health, commands to heads, and the number of clients.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dinov2_heads::{PcaCommand, PcaFit};
use serde_json::{Value, json};

use crate::ViewConfig;
use crate::feed::Feed;
use crate::health::Health;

/// Maximum number of pending commands to heads; the oldest are dropped.
const MAX_COMMANDS: usize = 64;

/// The shared state.
pub(crate) struct Shared {
    pub(crate) config: ViewConfig,
    /// The address that is listened on, with the assigned port.
    pub(crate) address: SocketAddr,
    /// One per camera.
    pub(crate) feeds: Vec<Feed>,
    pub(crate) health: Mutex<Health>,
    head_control: Mutex<HeadControl>,
    clients: AtomicUsize,
}

struct HeadControl {
    /// Name of the head and command, oldest first.
    commands: Vec<(String, Value)>,
    /// Mode of the head `pca` after all commands.
    fit: PcaFit,
}

/// Counts one client until it is dropped.
pub(crate) struct ClientPermit(Arc<Shared>);

impl Shared {
    pub(crate) fn new(config: ViewConfig, address: SocketAddr) -> Self {
        let feeds = config.cameras.iter().map(|_| Feed::new(config.max_fps)).collect();
        let health = Mutex::new(Health::new(config.silence_timeout));
        let head_control = Mutex::new(HeadControl { commands: Vec::new(), fit: config.pca });
        Self { config, address, feeds, health, head_control, clients: AtomicUsize::new(0) }
    }

    /// None if `max_clients` are connected.
    pub(crate) fn admit_client(self: &Arc<Self>) -> Option<ClientPermit> {
        let most = self.config.max_clients;
        let one_more = |taken| if taken < most { Some(taken + 1) } else { None };
        let taken = self.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| ClientPermit(Arc::clone(self)))
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Queues a command to a head for the pipeline.
    pub(crate) fn command(&self, head: String, command: Value) {
        let mut head_control = lock(&self.head_control);
        if head_control.commands.len() == MAX_COMMANDS {
            head_control.commands.remove(0);
        }
        head_control.commands.push((head, command));
    }

    /// Queues a command to the head `pca` for the pipeline.
    pub(crate) fn command_pca(&self, command: PcaCommand) {
        match command {
            PcaCommand::Refit => {}
            PcaCommand::Freeze => lock(&self.head_control).fit = PcaFit::Frozen,
            PcaCommand::Follow => lock(&self.head_control).fit = PcaFit::Follow,
        }
        self.command("pca".into(), json!(command));
    }

    pub(crate) fn take_commands(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut lock(&self.head_control).commands)
    }

    pub(crate) fn pca_fit(&self) -> PcaFit {
        lock(&self.head_control).fit
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Locks, also after a panic of another thread: the data behind these locks is consistent at every moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
