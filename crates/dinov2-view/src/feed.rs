//! The newest frame of each camera, handed from the pipeline to all viewers without a queue, and its JPEG files, made once for
//! all viewers. Frames are copied only while someone watches, at most `max_fps` per second.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dinov2_core::{HeadOutput, PatchGrid};
use dinov2_io::JpegEncoder;
use tokio::sync::watch;

use crate::Shown;
use crate::limits::MAX_SIDE_PX;
use crate::picture::{Picture, compose, reduce_into};
use crate::shared::lock;

/// JPEG quality, 1 to 100 (scale of the Independent JPEG Group).
const JPEG_QUALITY: u8 = 80;
/// Buffers that are kept for reuse: one to write, two that slow readers may still hold.
const MAX_SPARE: usize = 3;
/// The head whose colours are shown as pictures.
const PCA: &str = "pca";
/// Grey value of patches without colours.
const NO_COLOUR: u8 = 128;

/// One frame as viewers get it: a copy of what the pipeline showed.
pub(crate) struct ViewFrame {
    /// Number of the frame in its feed, from 1.
    sequence: u64,
    pub(crate) index: u64,
    pub(crate) capture_ns: Option<u64>,
    pub(crate) latency_ms: f64,
    /// `[height_px, width_px, 3]`, sides up to [`MAX_SIDE_PX`].
    pub(crate) pixels: Vec<u8>,
    pub(crate) width_px: usize,
    pub(crate) height_px: usize,
    pub(crate) grid: PatchGrid,
    /// Width and height of the engine's input image.
    pub(crate) image_px: (usize, usize),
    pub(crate) dim: usize,
    /// `[rows, cols, dim]`
    pub(crate) patches: Vec<f32>,
    /// `[rows, cols, 3]`
    pub(crate) colours: Vec<u8>,
    /// Outputs of all heads except `pca`.
    pub(crate) outputs: Vec<(String, HeadOutput)>,
    shown: Instant,
}

/// The newest frame of one camera and the number of its watchers.
///
/// The pipeline writes into a buffer that no reader holds and swaps it in; readers may hold a frame as long as they like.
pub(crate) struct Feed {
    interval: Duration,
    watchers: AtomicUsize,
    newest: watch::Sender<Option<Arc<ViewFrame>>>,
    /// Only the pipeline locks it.
    writer: Mutex<Writer>,
    /// Only the server locks it.
    jpegs: Mutex<JpegCache>,
}

struct Writer {
    /// Frames before this time would exceed `max_fps`.
    due: Instant,
    sequence: u64,
    spare: Vec<Arc<ViewFrame>>,
}

struct JpegCache {
    encoder: JpegEncoder,
    canvas: Vec<u8>,
    /// Per picture: sequence of the newest encoded frame, and its file.
    files: [(u64, Bytes); Picture::ALL.len()],
}

impl Feed {
    pub(crate) fn new(max_fps: f64) -> Self {
        let interval = Duration::try_from_secs_f64(1.0 / max_fps).unwrap_or(Duration::from_secs(3600));
        let jpegs = JpegCache {
            encoder: JpegEncoder::new(JPEG_QUALITY),
            canvas: Vec::new(),
            files: std::array::from_fn(|_| (0, Bytes::new())),
        };
        Self {
            interval,
            watchers: AtomicUsize::new(0),
            newest: watch::Sender::new(None),
            writer: Mutex::new(Writer { due: Instant::now(), sequence: 0, spare: Vec::new() }),
            jpegs: Mutex::new(jpegs),
        }
    }

    pub(crate) fn watch(&self) {
        self.watchers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unwatch(&self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }

    /// True if [`Self::show`] would copy a frame now.
    pub(crate) fn wants(&self) -> bool {
        self.is_watched() && Instant::now() >= lock(&self.writer).due
    }

    fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Copies a frame for the viewers if [`Self::wants`]. Frames without pixels or patches are ignored.
    pub(crate) fn show(&self, shown: &Shown<'_>) {
        if shown.image.pixels().is_empty() || shown.features.grid().is_empty() {
            return;
        }
        let mut writer = lock(&self.writer);
        let now = Instant::now();
        if !self.is_watched() || now < writer.due {
            return;
        }
        // Counted from the due time, so that the average is right when the rate does not divide the camera's.
        writer.due = (writer.due + self.interval).max(now);
        writer.sequence += 1;
        let unused = writer.spare.iter_mut().position(|frame| Arc::get_mut(frame).is_some());
        let mut frame = unused.map_or_else(|| Arc::new(ViewFrame::new()), |at| writer.spare.swap_remove(at));
        let unique = Arc::get_mut(&mut frame).expect("new, or not held by a reader");
        unique.fill(shown, writer.sequence, now);
        if let Some(old) = self.newest.send_replace(Some(frame)) {
            writer.spare.truncate(MAX_SPARE - 1);
            writer.spare.push(old);
        }
    }

    /// A receiver of the newest frame: [`newest`] reads it, `changed` waits for the next.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<ViewFrame>>> {
        self.newest.subscribe()
    }

    /// The JPEG of a picture of `frame`; encoded on the first call.
    pub(crate) fn jpeg(&self, frame: &ViewFrame, picture: Picture) -> Bytes {
        let JpegCache { encoder, canvas, files } = &mut *lock(&self.jpegs);
        let (sequence, file) = &mut files[picture as usize];
        if *sequence != frame.sequence {
            let bytes = encoder.encode(compose(frame, picture, canvas));
            // Encoding cannot fail: the sides are within the limits of JPEG, and no picture is empty.
            *file = Bytes::copy_from_slice(bytes.unwrap_or_default());
            *sequence = frame.sequence;
        }
        file.clone()
    }
}

/// The newest frame; it is marked as seen.
pub(crate) fn newest(receiver: &mut watch::Receiver<Option<Arc<ViewFrame>>>) -> Option<Arc<ViewFrame>> {
    receiver.borrow_and_update().clone()
}

impl ViewFrame {
    fn new() -> Self {
        Self {
            sequence: 0,
            index: 0,
            capture_ns: None,
            latency_ms: 0.0,
            pixels: Vec::new(),
            width_px: 0,
            height_px: 0,
            grid: PatchGrid { rows: 0, cols: 0 },
            image_px: (0, 0),
            dim: 0,
            patches: Vec::new(),
            colours: Vec::new(),
            outputs: Vec::new(),
            shown: Instant::now(),
        }
    }

    fn fill(&mut self, shown: &Shown<'_>, sequence: u64, now: Instant) {
        self.sequence = sequence;
        self.index = shown.index;
        self.capture_ns = shown.capture_ns;
        self.latency_ms = shown.latency_ms;
        (self.width_px, self.height_px) = reduce_into(shown.image, MAX_SIDE_PX, &mut self.pixels);
        self.grid = shown.features.grid();
        self.image_px = (shown.image.width_px(), shown.image.height_px());
        self.dim = shown.features.dim();
        self.patches.clear();
        self.patches.extend_from_slice(shown.features.patches());
        self.colours.clear();
        match shown.outputs.get(PCA) {
            Some(HeadOutput::Colours { grid, rgb }) if *grid == self.grid => {
                self.colours.extend_from_slice(rgb)
            }
            _ => self.colours.resize(self.grid.len() * 3, NO_COLOUR),
        }
        let others = shown.outputs.iter().filter(|(name, _)| *name != PCA);
        self.outputs.clear();
        self.outputs.extend(others.map(|(name, output)| (name.to_owned(), output.clone())));
        self.shown = now;
    }

    /// Time since the pipeline showed it.
    pub(crate) fn age(&self) -> Duration {
        self.shown.elapsed()
    }

    /// Feature `[dim]`, row and column of the patch at a point of the picture. x and y: 0..=1 from the top left.
    /// None for a frame without patches.
    pub(crate) fn patch_at(&self, x: f64, y: f64) -> Option<(&[f32], usize, usize)> {
        let index = |part: f64, count: usize| ((part * count as f64) as usize).min(count.saturating_sub(1));
        let (row, col) = (index(y, self.grid.rows), index(x, self.grid.cols));
        let feature = self.patches.chunks_exact(self.dim.max(1)).nth(row * self.grid.cols + col)?;
        Some((feature, row, col))
    }
}
