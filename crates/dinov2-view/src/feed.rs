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

/// Quality of JPEGs, on the scale of the Independent JPEG Group.
const JPEG_QUALITY: u8 = 80;
/// Used buffers that are kept: one that is written, two that slow readers may still hold.
const MAX_SPARE: usize = 3;
/// The head whose colours have pictures of their own.
const PCA: &str = "pca";
/// Colour of patches that have none yet.
const NO_COLOUR: u8 = 128;

/// One frame as viewers get it.
pub(crate) struct Shot {
    /// Counts the shots of a feed, from 1.
    sequence: u64,
    pub(crate) index: u64,
    pub(crate) capture_ns: Option<u64>,
    pub(crate) latency_ms: f64,
    /// `[height_px, width_px, 3]`, sides up to [`MAX_SIDE_PX`].
    pub(crate) pixels: Vec<u8>,
    pub(crate) width_px: usize,
    pub(crate) height_px: usize,
    pub(crate) grid: PatchGrid,
    /// Width and height of the image that the engine saw.
    pub(crate) image_px: (usize, usize),
    pub(crate) dim: usize,
    /// `[rows, cols, dim]`
    pub(crate) patches: Vec<f32>,
    /// `[rows, cols, 3]`
    pub(crate) colours: Vec<u8>,
    /// Of all heads but `pca`.
    pub(crate) outputs: Vec<(String, HeadOutput)>,
    shown: Instant,
}

/// The newest frame of one camera, and who waits for it.
///
/// The pipeline writes into buffers that nobody holds and swaps; readers hold what they read for as long as they like.
pub(crate) struct Feed {
    interval: Duration,
    watchers: AtomicUsize,
    newest: watch::Sender<Option<Arc<Shot>>>,
    /// Only the pipeline locks it.
    writer: Mutex<Writer>,
    /// Only the server locks it.
    files: Mutex<Files>,
}

struct Writer {
    /// Frames before this moment are too many.
    due: Instant,
    sequence: u64,
    spare: Vec<Arc<Shot>>,
}

struct Files {
    encoder: JpegEncoder,
    canvas: Vec<u8>,
    /// Per picture, the shot and its file.
    made: [(u64, Bytes); Picture::ALL.len()],
}

impl Feed {
    pub(crate) fn new(max_fps: f64) -> Self {
        let interval = Duration::try_from_secs_f64(1.0 / max_fps).unwrap_or(Duration::from_secs(3600));
        let files = Files {
            encoder: JpegEncoder::new(JPEG_QUALITY),
            canvas: Vec::new(),
            made: std::array::from_fn(|_| (0, Bytes::new())),
        };
        Self {
            interval,
            watchers: AtomicUsize::new(0),
            newest: watch::Sender::new(None),
            writer: Mutex::new(Writer { due: Instant::now(), sequence: 0, spare: Vec::new() }),
            files: Mutex::new(files),
        }
    }

    pub(crate) fn watch(&self) {
        self.watchers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unwatch(&self) {
        self.watchers.fetch_sub(1, Ordering::Relaxed);
    }

    /// True if a frame shown now would be taken.
    pub(crate) fn wants(&self) -> bool {
        self.is_watched() && Instant::now() >= lock(&self.writer).due
    }

    fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Copies a frame for the viewers, if one is wanted. One without pixels or patches is none.
    pub(crate) fn show(&self, shown: &Shown<'_>) {
        if shown.image.pixels().is_empty() || shown.features.grid().is_empty() {
            return;
        }
        let mut writer = lock(&self.writer);
        let now = Instant::now();
        if !self.is_watched() || now < writer.due {
            return;
        }
        // Counted from when it was due, so that a rate which does not divide the camera's still comes out on average.
        writer.due = (writer.due + self.interval).max(now);
        writer.sequence += 1;
        let unused = writer.spare.iter_mut().position(|shot| Arc::get_mut(shot).is_some());
        let mut shot = unused.map_or_else(|| Arc::new(Shot::new()), |at| writer.spare.swap_remove(at));
        let unique = Arc::get_mut(&mut shot).expect("new, or found to be held by nobody");
        unique.fill(shown, writer.sequence, now);
        if let Some(old) = self.newest.send_replace(Some(shot)) {
            writer.spare.truncate(MAX_SPARE - 1);
            writer.spare.push(old);
        }
    }

    /// A view of the newest shot; [`newest`] reads it, `changed` waits for the next.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<Shot>>> {
        self.newest.subscribe()
    }

    /// The JPEG of a picture of `shot`; made once, for whoever asks first.
    pub(crate) fn jpeg(&self, shot: &Shot, picture: Picture) -> Bytes {
        let Files { encoder, canvas, made } = &mut *lock(&self.files);
        let (sequence, file) = &mut made[picture as usize];
        if *sequence != shot.sequence {
            let bytes = encoder.encode(compose(shot, picture, canvas));
            // Sides are within what a JPEG can have, and no picture is empty.
            *file = Bytes::copy_from_slice(bytes.unwrap_or_default());
            *sequence = shot.sequence;
        }
        file.clone()
    }
}

/// The newest shot, which counts as seen.
pub(crate) fn newest(receiver: &mut watch::Receiver<Option<Arc<Shot>>>) -> Option<Arc<Shot>> {
    receiver.borrow_and_update().clone()
}

impl Shot {
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

    /// Time since it was shown.
    pub(crate) fn age(&self) -> Duration {
        self.shown.elapsed()
    }

    /// The feature of the patch at a point of the picture, and the patch's row and column. x and y: 0..=1, from the
    /// top left. None for a frame without patches.
    pub(crate) fn patch_at(&self, x: f64, y: f64) -> Option<(&[f32], usize, usize)> {
        let place = |part: f64, count: usize| ((part * count as f64) as usize).min(count.saturating_sub(1));
        let (row, col) = (place(y, self.grid.rows), place(x, self.grid.cols));
        let feature = self.patches.chunks_exact(self.dim.max(1)).nth(row * self.grid.cols + col)?;
        Some((feature, row, col))
    }
}
