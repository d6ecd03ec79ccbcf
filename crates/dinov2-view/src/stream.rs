//! Pictures over plain HTTP: an endless MJPEG stream and single PNG snapshots. [`Viewer`] also serves the web socket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{AppendHeaders, IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::unfold;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::feed::{ViewFrame, newest};
use crate::limits::{FRESH, SNAPSHOT_TIMEOUT};
use crate::picture::{Picture, compose, png_of};
use crate::refusal::Refusal;
use crate::shared::{ClientPermit, Shared};

/// Separates the parts of a stream.
const BOUNDARY: &str = "dinov2-view-frame";

/// `?camera=1&view=overlay`
#[derive(Deserialize)]
pub(crate) struct Choice {
    #[serde(default)]
    camera: usize,
    view: Option<Picture>,
}

/// A client of one camera, with the permit that counts it.
pub(crate) struct Viewer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) camera: usize,
    frames: watch::Receiver<Option<Arc<ViewFrame>>>,
    /// Whether it is counted among the camera's watchers.
    watches: bool,
    _permit: ClientPermit,
}

impl Viewer {
    /// A client of `camera` that does not watch yet.
    ///
    /// # Errors
    /// There is no such camera, or the limit on clients is reached.
    pub(crate) fn new(shared: Arc<Shared>, camera: usize) -> Result<Self, Refusal> {
        let last = shared.feeds.len() - 1;
        let feed = shared.feeds.get(camera).ok_or(Refusal::Camera { camera, last })?;
        let permit = shared.admit_client().ok_or(Refusal::Full { most: shared.config.max_clients })?;
        let frames = feed.subscribe();
        Ok(Self { shared, camera, frames, watches: false, _permit: permit })
    }

    /// Starts or stops watching. Frames are made only for cameras that are watched.
    pub(crate) fn watch(&mut self, wanted: bool) {
        let feed = &self.shared.feeds[self.camera];
        match (self.watches, wanted) {
            (false, true) => feed.watch(),
            (true, false) => feed.unwatch(),
            _ => {}
        }
        self.watches = wanted;
    }

    /// The newest frame if it is younger than [`FRESH`]; it is marked as seen.
    pub(crate) fn fresh(&mut self) -> Option<Arc<ViewFrame>> {
        newest(&mut self.frames).filter(|frame| frame.age() < FRESH)
    }

    /// The next unseen frame. None when the server ends. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Arc<ViewFrame>> {
        loop {
            self.frames.changed().await.ok()?;
            if let Some(frame) = newest(&mut self.frames) {
                return Some(frame);
            }
        }
    }

    pub(crate) fn jpeg(&self, frame: &ViewFrame, picture: Picture) -> Bytes {
        self.shared.feeds[self.camera].jpeg(frame, picture)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.watch(false);
    }
}

/// A stream of JPEGs (`multipart/x-mixed-replace`), which browsers, VLC, OpenCV and ffmpeg read.
pub(crate) async fn stream(
    State(shared): State<Arc<Shared>>,
    Query(choice): Query<Choice>,
) -> Result<Response, Refusal> {
    let mut viewer = Viewer::new(shared, choice.camera)?;
    viewer.watch(true);
    let picture = choice.view.unwrap_or(Picture::All);
    let first = viewer.fresh();
    let parts = unfold((viewer, first, true), move |(mut viewer, waiting, opening)| async move {
        let frame = match waiting {
            Some(frame) => frame,
            None => viewer.next().await?,
        };
        let part = part(&viewer.jpeg(&frame, picture), &frame, opening);
        Some((Ok::<_, std::convert::Infallible>(part), (viewer, None, false)))
    });
    let content_type = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    Ok(([(CONTENT_TYPE, content_type)], Body::from_stream(parts)).into_response())
}

/// One part, followed by the boundary, because browsers show a picture only when they see the next boundary.
fn part(jpeg: &[u8], frame: &ViewFrame, opening: bool) -> Bytes {
    let boundary = format!("--{BOUNDARY}\r\n");
    let head = format!(
        "Content-Type: image/jpeg\r\nContent-Length: {}\r\nX-Frame-Index: {}\r\n{}\r\n",
        jpeg.len(),
        frame.index,
        frame.capture_ns.map(|ns| format!("X-Capture-Ns: {ns}\r\n")).unwrap_or_default(),
    );
    let mut bytes = BytesMut::with_capacity(head.len() + jpeg.len() + 2 * boundary.len() + 2);
    if opening {
        bytes.put_slice(boundary.as_bytes());
    }
    for piece in [head.as_bytes(), jpeg, b"\r\n", boundary.as_bytes()] {
        bytes.put_slice(piece);
    }
    bytes.freeze()
}

/// The newest frame as PNG, without loss.
pub(crate) async fn snapshot(
    State(shared): State<Arc<Shared>>,
    Query(choice): Query<Choice>,
) -> Result<Response, Refusal> {
    let mut viewer = Viewer::new(shared, choice.camera)?;
    viewer.watch(true);
    let frame = match viewer.fresh() {
        Some(frame) => Some(frame),
        None => timeout(SNAPSHOT_TIMEOUT, viewer.next()).await.ok().flatten(),
    };
    let frame = frame.ok_or(Refusal::NoFrame { seconds: SNAPSHOT_TIMEOUT.as_secs() })?;
    let mut canvas = Vec::new();
    let image = compose(&frame, choice.view.unwrap_or(Picture::All), &mut canvas);
    let name = format!("inline; filename=\"camera-{}-frame-{}.png\"", choice.camera, frame.index);
    let headers = [
        (CONTENT_TYPE.as_str(), "image/png".to_owned()),
        (CONTENT_DISPOSITION.as_str(), name),
        ("x-frame-index", frame.index.to_string()),
    ];
    let capture = AppendHeaders(frame.capture_ns.map(|ns| ("x-capture-ns", ns.to_string())));
    Ok((headers, capture, png_of(image)).into_response())
}
