//! The frame: pixels with their size, time and name.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dinov2_core::ImageView;

/// One image of a source. Pass the same frame to every call of [`crate::Source::next_frame`]: its buffers are reused, so that
/// videos allocate no memory per frame unless their decoder does.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// RGB u8: `[height_px, width_px, 3]`.
    pub pixels: Vec<u8>,
    /// Width in pixels.
    pub width_px: usize,
    /// Height in pixels.
    pub height_px: usize,
    /// Capture time, if known. Video files: the presentation time in the file, which need not start at 0. y4m and animations:
    /// time since the first frame. Cameras and recordings: UNIX time.
    pub capture_ns: Option<u64>,
    /// Capture time on the monotonic clock, for live sources. Latency is measured from it.
    pub captured: Option<Instant>,
    /// Position in the whole run, from 0.
    pub index: usize,
    /// Stem for the names of output files: the stem of an image file, or `STEM_000000` (from 0) in a video.
    pub name: String,
    /// The file of the frame, if any.
    pub path: Option<PathBuf>,
}

impl Frame {
    /// Without pixels; the first [`crate::Source::next_frame`] fills it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pixels with their size.
    ///
    /// # Panics
    /// If `pixels` was resized by hand and no longer matches the size.
    pub fn view(&self) -> ImageView<'_> {
        ImageView::new(&self.pixels, self.width_px, self.height_px)
            .expect("frame pixels match the frame size")
    }

    /// Sets index, name and times of a frame of a live source.
    pub(crate) fn mark_live(&mut self, stem: &str, index: usize, captured: Instant) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.capture_ns = u64::try_from(since_epoch.saturating_sub(captured.elapsed()).as_nanos()).ok();
        self.captured = Some(captured);
        self.path = None;
        self.index = index;
        self.name.clear();
        write!(self.name, "{stem}_{index:06}").expect("writing to a string succeeds");
    }

    /// Sizes the pixels for `width_px` x `height_px`; their values are unspecified. A growing buffer is replaced by
    /// zero pages of the system, so that a size that was merely claimed costs no memory until it is written.
    pub(crate) fn resize(&mut self, width_px: usize, height_px: usize) {
        let bytes = width_px * height_px * 3;
        if bytes > self.pixels.capacity() {
            self.pixels = Vec::new();
            self.pixels = vec![0; bytes];
        } else {
            self.pixels.resize(bytes, 0);
        }
        self.width_px = width_px;
        self.height_px = height_px;
    }
}
