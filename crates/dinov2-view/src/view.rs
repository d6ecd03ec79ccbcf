//! [`View`]: the handle by which the pipeline starts, feeds and stops a live page. The server runs on one thread.

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

/// One frame with its features and outputs.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Number of the camera, from 0, as in [`ViewConfig::cameras`].
    pub camera: usize,
    /// The image that the features were computed from.
    pub image: ImageView<'a>,
    /// Features of the image.
    pub features: &'a Features,
    /// Outputs of the heads. The output `pca` is the colour picture, which is grey without it.
    pub outputs: &'a HeadOutputs,
    /// Position of the frame in the run, from 0.
    pub index: u64,
    /// Capture time in nanoseconds since the UNIX epoch, if the source knows it.
    pub capture_ns: Option<u64>,
    /// Time from capture to features, in milliseconds.
    pub latency_ms: f64,
}

/// A running live page. Dropping it stops the server.
pub struct View {
    shared: Arc<Shared>,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl View {
    /// Listens on the configured address and serves on a new thread.
    ///
    /// # Errors
    /// [`ViewError::NoCamera`], [`ViewError::Rate`]; [`ViewError::Bind`] if the address cannot be listened on;
    /// [`ViewError::Start`] if no thread can be started.
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
            // Tasks end at their next await.
            runtime.shutdown_background();
        };
        let thread =
            std::thread::Builder::new().name("view".into()).spawn(serve).map_err(ViewError::Start)?;
        Ok(Self { shared, thread: Some((stop, thread)) })
    }

    /// The address that is listened on, with the assigned port.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// True if a viewer watches this camera and its next frame is due. Otherwise [`Self::show`] ignores the frame, and the
    /// heads need not be computed.
    pub fn wants_frame(&self, camera: usize) -> bool {
        self.shared.feeds.get(camera).is_some_and(|feed| feed.wants())
    }

    /// Shows a frame: copies it if [`Self::wants_frame`]. Never waits for a client. Frames of cameras that were not configured
    /// are ignored.
    pub fn show(&self, shown: &Shown<'_>) {
        if let Some(feed) = self.shared.feeds.get(shown.camera) {
            feed.show(shown);
        }
    }

    /// Updates the statistics of the page, `/metrics` and `/healthz`. Call it about once a second, also without viewers;
    /// after [`ViewConfig::silence_timeout`] without a call, `/healthz` fails.
    pub fn update(&self, stats: &LiveStats) {
        lock(&self.shared.health).update(stats);
    }

    /// Commands of viewers to heads since the last call, oldest first: name of the head and command.
    pub fn take_commands(&self) -> Vec<(String, Value)> {
        self.shared.take_commands()
    }

    /// Stops the server, as dropping does: connections are closed and the port is free.
    pub fn stop(self) {}
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            // The panic hook has already reported a panic of the server.
            let _ = thread.join();
        }
    }
}
