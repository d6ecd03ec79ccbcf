use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use dinov2_core::{Features, HeadOutputs, ImageView};
use dinov2_io::LiveStats;
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::shared::{Shared, lock};
use crate::{ViewConfig, ViewError, server};

/// One frame with what was made of it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Number of the camera, from 0, as in [`ViewConfig::cameras`].
    pub camera: usize,
    /// The image that the features were made of.
    pub image: ImageView<'a>,
    /// Its features.
    pub features: &'a Features,
    /// What heads made of the features. The colours of the head `pca` are a picture of their own; without them it is grey.
    pub outputs: &'a HeadOutputs,
    /// Position of the frame in the run, from 0.
    pub index: u64,
    /// When it was taken, UNIX time, where the source tells it.
    pub capture_ns: Option<u64>,
    /// From capture to features, in milliseconds.
    pub latency_ms: f64,
}

/// A running live page. Dropping it ends it.
pub struct View {
    shared: Arc<Shared>,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl View {
    /// Listens on the configured address and serves from a thread of its own.
    ///
    /// # Errors
    /// No camera, a rate of 0, an address that cannot be listened on, or no thread.
    pub fn start(config: ViewConfig) -> Result<Self, ViewError> {
        config.check()?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ViewError::Start)?;
        let listener = {
            let _in_runtime = runtime.enter();
            let bind = |reason| ViewError::Bind { address: config.address, reason };
            server::listen(config.address).map_err(bind)?
        };
        let address = listener.local_addr().map_err(ViewError::Start)?;
        let shared = Arc::new(Shared::new(config, address));
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&shared);
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    // Also when the sender is dropped.
                    _ = stopped => {}
                    () = server::serve(listener, served) => {}
                }
            });
            // Every task waits somewhere and ends there.
            runtime.shutdown_background();
        };
        let thread =
            std::thread::Builder::new().name("view".into()).spawn(serve).map_err(ViewError::Start)?;
        Ok(Self { shared, thread: Some((stop, thread)) })
    }

    /// The address with the port that was really given.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// True if someone looks at this camera and its next frame is due. Otherwise [`Self::show`] takes nothing, so
    /// that no heads need be computed for it.
    pub fn wants_frame(&self, camera: usize) -> bool {
        self.shared.feeds.get(camera).is_some_and(|feed| feed.wants())
    }

    /// Gives a frame to whoever looks: copied if [`Self::wants_frame`], and returns; nothing here waits for a client. A
    /// camera that was not configured is nobody's.
    pub fn show(&self, shown: &Shown<'_>) {
        if let Some(feed) = self.shared.feeds.get(shown.camera) {
            feed.show(shown);
        }
    }

    /// Tells how the run is doing: for the page, `/metrics` and `/healthz`. Wanted about once a second, also
    /// without viewers; without it the page reports a pipeline that stands still.
    pub fn update(&self, stats: &LiveStats) {
        lock(&self.shared.pulse).update(stats);
    }

    /// Commands that viewers sent to heads since the last call, oldest first: name of the head and command.
    pub fn take_commands(&self) -> Vec<(String, Value)> {
        self.shared.take_commands()
    }

    /// Ends it, as dropping does: connections are cut, the port is free again.
    pub fn stop(self) {}
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            // A panic of the server has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}
