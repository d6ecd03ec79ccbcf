//! Pictures by plain HTTP: a stream that never ends, and one at a time.

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

use crate::feed::{Shot, newest};
use crate::limits::{FRESH, SNAPSHOT_TIMEOUT};
use crate::picture::{Picture, compose, png_of};
use crate::refusal::Refusal;
use crate::shared::{Seat, Shared};

/// Separates the parts of a stream; contains what no JPEG header has in a row.
const BOUNDARY: &str = "dinov2-view-frame";

/// `?camera=1&view=overlay`
#[derive(Deserialize)]
pub(crate) struct Choice {
    #[serde(default)]
    camera: usize,
    view: Option<Picture>,
}

/// A client that waits for the frames of one camera.
pub(crate) struct Viewer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) camera: usize,
    shots: watch::Receiver<Option<Arc<Shot>>>,
    /// What it has of the camera's attention.
    watches: bool,
    _seat: Seat,
}

impl Viewer {
    /// A client of `camera` that does not yet want frames.
    ///
    /// # Errors
    /// There is no such camera or no seat.
    pub(crate) fn new(shared: Arc<Shared>, camera: usize) -> Result<Self, Refusal> {
        let last = shared.feeds.len() - 1;
        let feed = shared.feeds.get(camera).ok_or(Refusal::Camera { camera, last })?;
        let seat = shared.seat().ok_or(Refusal::Full { most: shared.config.max_clients })?;
        let shots = feed.subscribe();
        Ok(Self { shared, camera, shots, watches: false, _seat: seat })
    }

    /// Says whether it wants frames.
    pub(crate) fn watch(&mut self, wanted: bool) {
        let feed = &self.shared.feeds[self.camera];
        match (self.watches, wanted) {
            (false, true) => feed.watch(),
            (true, false) => feed.unwatch(),
            _ => {}
        }
        self.watches = wanted;
    }

    /// The newest frame, if it is not old; it counts as seen.
    pub(crate) fn fresh(&mut self) -> Option<Arc<Shot>> {
        newest(&mut self.shots).filter(|shot| shot.age() < FRESH)
    }

    /// The next frame that was not seen. None when the server ends. Can be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<Arc<Shot>> {
        loop {
            self.shots.changed().await.ok()?;
            if let Some(shot) = newest(&mut self.shots) {
                return Some(shot);
            }
        }
    }

    pub(crate) fn jpeg(&self, shot: &Shot, picture: Picture) -> Bytes {
        self.shared.feeds[self.camera].jpeg(shot, picture)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.watch(false);
    }
}

/// JPEGs one after the other (`multipart/x-mixed-replace`), as browsers, VLC, OpenCV and ffmpeg take them.
pub(crate) async fn stream(
    State(shared): State<Arc<Shared>>,
    Query(choice): Query<Choice>,
) -> Result<Response, Refusal> {
    let mut viewer = Viewer::new(shared, choice.camera)?;
    viewer.watch(true);
    let picture = choice.view.unwrap_or(Picture::All);
    let first = viewer.fresh();
    let parts = unfold((viewer, first, true), move |(mut viewer, waiting, opening)| async move {
        let shot = match waiting {
            Some(shot) => shot,
            None => viewer.next().await?,
        };
        let part = part(&viewer.jpeg(&shot, picture), &shot, opening);
        Some((Ok::<_, std::convert::Infallible>(part), (viewer, None, false)))
    });
    let content_type = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    Ok(([(CONTENT_TYPE, content_type)], Body::from_stream(parts)).into_response())
}

/// One part, with the boundary behind it: browsers show a picture when they see its end.
fn part(jpeg: &[u8], shot: &Shot, opening: bool) -> Bytes {
    let boundary = format!("--{BOUNDARY}\r\n");
    let head = format!(
        "Content-Type: image/jpeg\r\nContent-Length: {}\r\nX-Frame-Index: {}\r\n{}\r\n",
        jpeg.len(),
        shot.index,
        shot.capture_ns.map(|ns| format!("X-Capture-Ns: {ns}\r\n")).unwrap_or_default(),
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

/// The newest frame as PNG: what it shows is exact.
pub(crate) async fn snapshot(
    State(shared): State<Arc<Shared>>,
    Query(choice): Query<Choice>,
) -> Result<Response, Refusal> {
    let mut viewer = Viewer::new(shared, choice.camera)?;
    viewer.watch(true);
    let shot = match viewer.fresh() {
        Some(shot) => Some(shot),
        None => timeout(SNAPSHOT_TIMEOUT, viewer.next()).await.ok().flatten(),
    };
    let shot = shot.ok_or(Refusal::NoFrame { seconds: SNAPSHOT_TIMEOUT.as_secs() })?;
    let mut canvas = Vec::new();
    let image = compose(&shot, choice.view.unwrap_or(Picture::All), &mut canvas);
    let name = format!("inline; filename=\"camera-{}-frame-{}.png\"", choice.camera, shot.index);
    let headers = [
        (CONTENT_TYPE.as_str(), "image/png".to_owned()),
        (CONTENT_DISPOSITION.as_str(), name),
        ("x-frame-index", shot.index.to_string()),
    ];
    let capture = AppendHeaders(shot.capture_ns.map(|ns| ("x-capture-ns", ns.to_string())));
    Ok((headers, capture, png_of(image)).into_response())
}
