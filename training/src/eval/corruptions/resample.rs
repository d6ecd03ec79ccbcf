//! Pixelation and JPEG.

use dinov2_core::ImageView;
use dinov2_io::{Frame, JpegEncoder, decode_still};

use super::{CHANNELS, Severity};

/// Means over rectangles, enlarged again without smoothing.
pub(super) fn pixelate(pixels: &[u8], (width, height): (usize, usize), severity: Severity) -> Vec<u8> {
    let kept = severity.of([0.6, 0.5, 0.4, 0.3, 0.25]);
    let side = |side: usize| ((side as f64 * kept) as usize).max(1);
    let (columns, rows) = (Cells::new(width, side(width)), Cells::new(height, side(height)));
    // Columns first, each direction rounded to bytes, as Pillow does.
    let mut narrow = Vec::with_capacity(height * columns.len() * CHANNELS);
    for line in pixels.chunks_exact(width * CHANNELS) {
        for cell in &columns.cells {
            narrow.extend((0..CHANNELS).map(|channel| cell.mean(|x| line[x * CHANNELS + channel])));
        }
    }
    let row_bytes = columns.len() * CHANNELS;
    let mut small = Vec::with_capacity(rows.len() * row_bytes);
    for cell in &rows.cells {
        small.extend((0..row_bytes).map(|byte| cell.mean(|y| narrow[y * row_bytes + byte])));
    }
    let mut out = Vec::with_capacity(pixels.len());
    for y in 0..height {
        let line = &small[rows.under(y) * row_bytes..][..row_bytes];
        out.extend((0..width).flat_map(|x| &line[columns.under(x) * CHANNELS..][..CHANNELS]));
    }
    out
}

/// How a side is divided.
struct Cells {
    length: usize,
    cells: Vec<Cell>,
}

/// Pixels whose centres lie in one cell.
struct Cell {
    pixels: std::ops::Range<usize>,
}

impl Cells {
    fn new(length: usize, count: usize) -> Self {
        // The first pixel whose centre is not before the boundary, `cell * length / count`.
        let first = |cell: usize| (2 * cell * length + count) / (2 * count);
        let cells = (0..count).map(|cell| Cell { pixels: first(cell)..first(cell + 1) }).collect();
        Self { length, cells }
    }

    fn len(&self) -> usize {
        self.cells.len()
    }

    /// The cell under the centre of a pixel.
    fn under(&self, pixel: usize) -> usize {
        (2 * pixel + 1) * self.len() / (2 * self.length)
    }
}

impl Cell {
    fn mean(&self, value: impl Fn(usize) -> u8) -> u8 {
        let sum: usize = self.pixels.clone().map(|pixel| usize::from(value(pixel))).sum();
        let count = self.pixels.len().max(1);
        ((sum + count / 2) / count) as u8
    }
}

/// Through a JPEG of low quality.
pub(super) fn jpeg(image: ImageView<'_>, severity: Severity) -> Vec<u8> {
    let mut encoder = JpegEncoder::new(severity.of([25, 18, 15, 10, 7]));
    let encoded = encoder.encode(image).expect("a fitted image is not longer than a JPEG may be");
    let mut frame = Frame::new();
    decode_still(encoded, &mut frame).expect("what was just encoded decodes");
    frame.pixels
}
