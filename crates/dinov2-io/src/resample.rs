//! Antialiased bicubic resampling of RGB u8, equal to `PIL.Image.resize(size, BICUBIC)` to the bit.
//!
//! Two passes, columns and rows, each in fixed point and rounded to u8: `(2^21 + sum(value * weight)) >> 22`, clipped to
//! 0..=255. The order of the passes is visible at strong edges; it is that of Pillow 13 (earlier versions always resample
//! columns first). The weights are those of Pillow's `Resample.c`: Keys' cubic with a = -0.5, stretched by the scale when
//! shrinking, normalised in f64, rounded to 22 bits.

/// Bits of a weight behind the binary point. `|weights|` sum up to at most 1.3, so 255 * 1.3 * 2^22 fits i32.
const POINT: u32 = 22;
const HALF: i32 = 1 << (POINT - 1);
/// Reach of the cubic in pixels of the larger image.
const SUPPORT: f64 = 2.0;
const CHANNELS: usize = 3;
/// Rows that a column pass works on side by side.
const TILE_ROWS: usize = 16;
/// Sums that are kept in registers at a time: one pixel of each of these rows.
const LANES: usize = TILE_ROWS * CHANNELS;

/// Resamples RGB u8, bit-equal to `PIL.Image.resize(size, BICUBIC)` of Pillow 13. Keeps weights and buffers while the sizes
/// stay the same. Use [`crate::Fit`] for the patch grid of a model.
///
/// ```
/// use dinov2_io::Resampler;
///
/// let mut out = Vec::new();
/// Resampler::default().resize(&[9; 4 * 2 * 3], (4, 2), (2, 1), &mut out);
/// assert_eq!(out, [9; 2 * 3]);
/// ```
#[derive(Debug, Default)]
pub struct Resampler {
    columns: Axis,
    rows: Axis,
    /// Result of the first pass.
    halfway: Vec<u8>,
    /// `[width, 3, TILE_ROWS]`
    tile: Vec<u8>,
}

impl Resampler {
    /// pixels: `[from.1, from.0, 3]`; out: `[to.1, to.0, 3]`, replaced. Sizes are `(width, height)`, positive.
    ///
    /// # Panics
    /// If `pixels` has another length.
    pub fn resize(&mut self, pixels: &[u8], from: (usize, usize), to: (usize, usize), out: &mut Vec<u8>) {
        assert_eq!(pixels.len(), from.0 * from.1 * CHANNELS, "pixels of {from:?}");
        out.resize(to.0 * to.1 * CHANNELS, 0);
        self.columns.set(from.0, to.0);
        self.rows.set(from.1, to.1);
        let (columns, rows) = (&self.columns, &self.rows);
        let rows_of = |width: usize| Pass::Rows { row_bytes: width * CHANNELS };
        match (from.0 != to.0, from.1 != to.1) {
            (false, false) => out.copy_from_slice(pixels),
            (true, false) => run(columns, Pass::Columns { tile: &mut self.tile }, pixels, out),
            (false, true) => run(rows, rows_of(to.0), pixels, out),
            (true, true) if rows_first(from, to) => {
                self.halfway.resize(from.0 * to.1 * CHANNELS, 0);
                run(rows, rows_of(from.0), pixels, &mut self.halfway);
                run(columns, Pass::Columns { tile: &mut self.tile }, &self.halfway, out);
            }
            (true, true) => {
                self.halfway.resize(to.0 * from.1 * CHANNELS, 0);
                run(columns, Pass::Columns { tile: &mut self.tile }, pixels, &mut self.halfway);
                run(rows, rows_of(to.0), &self.halfway, out);
            }
        }
    }
}

/// Whether rows come first: where the height shrinks by more than twice as many pixels as the width (Pillow pull
/// request 9549; the factor found by trying 1,500 sizes on Pillow 13.0).
fn rows_first(from: (usize, usize), to: (usize, usize)) -> bool {
    from.1 > to.1 && from.1 + 2 * to.0 > to.1 + 2 * from.0
}

/// The weights of one pass.
#[derive(Debug, Default)]
struct Axis {
    from: usize,
    to: usize,
    /// Weights per output, zeros included.
    taps: usize,
    /// `[to]`, first input of each output.
    starts: Vec<usize>,
    /// `[to, taps]`
    weights: Vec<i32>,
}

impl Axis {
    fn set(&mut self, from: usize, to: usize) {
        if (self.from, self.to) == (from, to) {
            return;
        }
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = SUPPORT * stretch;
        let widest = support.ceil() as usize * 2 + 1;
        self.taps = widest.min(from);
        self.starts.clear();
        self.weights.clear();
        self.weights.resize(to * self.taps, 0);
        let mut exact = Vec::with_capacity(widest);
        for (output, weights) in self.weights.chunks_exact_mut(self.taps).enumerate() {
            let center = (output as f64 + 0.5) * scale;
            // Casts saturate at 0, where Pillow clamps.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let start = first.min(from - self.taps);
            let distance = |input: usize| (input as f64 - center + 0.5) * (1.0 / stretch);
            exact.clear();
            exact.extend((first..end).map(|input| cubic(distance(input))));
            let sum: f64 = exact.iter().sum();
            for (weight, target) in exact.iter().zip(&mut weights[first - start..]) {
                *target = (weight / sum * f64::from(1 << POINT)).round() as i32;
            }
            self.starts.push(start);
        }
        (self.from, self.to) = (from, to);
    }
}

/// Keys' cubic, a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

enum Pass<'a> {
    Columns { tile: &'a mut Vec<u8> },
    Rows { row_bytes: usize },
}

/// Dispatches to the same code compiled for any CPU or for AVX2, which multiplies four times as many 32-bit numbers at once.
fn run(axis: &Axis, pass: Pass<'_>, from: &[u8], to: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "calling a function compiled for a CPU feature")]
        // SAFETY: the CPU has AVX2, which is all that the function asks for.
        unsafe {
            run_avx2(axis, pass, from, to);
        }
        return;
    }
    run_portable(axis, pass, from, to);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2(axis: &Axis, pass: Pass<'_>, from: &[u8], to: &mut [u8]) {
    run_portable(axis, pass, from, to);
}

#[inline(always)]
fn run_portable(axis: &Axis, pass: Pass<'_>, from: &[u8], to: &mut [u8]) {
    match pass {
        Pass::Columns { tile } => {
            tile.resize(axis.from * LANES, 0);
            let blocks = from.chunks(TILE_ROWS * axis.from * CHANNELS);
            for (from, to) in blocks.zip(to.chunks_mut(TILE_ROWS * axis.to * CHANNELS)) {
                resample_columns(axis, tile, from, to);
            }
        }
        Pass::Rows { row_bytes } => {
            let outputs = axis.starts.iter().zip(axis.weights.chunks_exact(axis.taps));
            for ((start, weights), to) in outputs.zip(to.chunks_exact_mut(row_bytes)) {
                sum_rows(&from[start * row_bytes..], weights, row_bytes, to);
            }
        }
    }
}

/// Resamples up to `TILE_ROWS` rows. They are transposed first, so that their sums are computed side by side.
#[inline(always)]
fn resample_columns(axis: &Axis, tile: &mut [u8], from: &[u8], to: &mut [u8]) {
    for (row, values) in from.chunks_exact(axis.from * CHANNELS).enumerate() {
        for (value, lanes) in values.iter().zip(tile.as_chunks_mut::<TILE_ROWS>().0) {
            lanes[row] = *value;
        }
    }
    let pixels = tile.as_chunks::<LANES>().0;
    for (output, (start, weights)) in axis.starts.iter().zip(axis.weights.chunks_exact(axis.taps)).enumerate()
    {
        let mut sums = [HALF; LANES];
        for (values, weight) in pixels[*start..].iter().zip(weights) {
            for lane in 0..LANES {
                sums[lane] += i32::from(values[lane]) * weight;
            }
        }
        let lanes = sums.map(round);
        for (row, to) in to.chunks_exact_mut(axis.to * CHANNELS).enumerate() {
            for (channel, target) in to[output * CHANNELS..][..CHANNELS].iter_mut().enumerate() {
                *target = lanes[channel * TILE_ROWS + row];
            }
        }
    }
}

/// One output row from the `taps` rows at the start of `from`.
#[inline(always)]
fn sum_rows(from: &[u8], weights: &[i32], row_bytes: usize, to: &mut [u8]) {
    let (blocks, rest) = to.as_chunks_mut::<LANES>();
    let whole = blocks.len() * LANES;
    let rows = || from.chunks_exact(row_bytes).zip(weights);
    for (block, to) in blocks.iter_mut().enumerate() {
        let mut sums = [HALF; LANES];
        for (row, weight) in rows() {
            let values = &row[block * LANES..][..LANES];
            for lane in 0..LANES {
                sums[lane] += i32::from(values[lane]) * weight;
            }
        }
        *to = sums.map(round);
    }
    for (offset, target) in rest.iter_mut().enumerate() {
        let products = rows().map(|(row, weight)| i32::from(row[whole + offset]) * weight);
        *target = round(HALF + products.sum::<i32>());
    }
}

#[inline(always)]
fn round(sum: i32) -> u8 {
    (sum >> POINT).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One output in exact integers: `pixel` gives the inputs from the first one with a weight.
    fn sum(axis: &Axis, output: usize, pixel: impl Fn(usize) -> u8) -> u8 {
        let weights = &axis.weights[output * axis.taps..][..axis.taps];
        let products = weights
            .iter()
            .enumerate()
            .map(|(tap, weight)| i64::from(pixel(axis.starts[output] + tap)) * i64::from(*weight));
        ((products.sum::<i64>() + (1 << 21)) >> 22).clamp(0, 255) as u8
    }

    /// Both passes, as compiled for any CPU and as this CPU runs them, against sums of one output at a time. The weights are
    /// held to PIL in `tests/fit.rs`.
    #[test]
    fn every_variant_gives_the_bytes_of_the_definition() {
        #[cfg(target_arch = "x86_64")]
        if !std::arch::is_x86_feature_detected!("avx2") {
            eprintln!("SKIPPED: AVX2, which this CPU lacks");
        }
        let mut state = 1_u32;
        let mut noise = |len: usize| -> Vec<u8> {
            let next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if state >> 31 == 0 { (state >> 16) as u8 } else { ((state >> 30) & 1) as u8 * 255 }
            };
            std::iter::repeat_with(next).take(len).collect()
        };
        for (from, to) in [(1, 1), (1, 9), (2, 1), (3, 50), (17, 5), (64, 63), (97, 98), (200, 3)] {
            let mut axis = Axis::default();
            axis.set(from, to);
            for other in [1, 5, 16, 22, 43] {
                let pixels = noise(from * other * CHANNELS);
                let row_bytes = other * CHANNELS;
                let (mut tile, mut got) = (Vec::new(), vec![0; to * row_bytes]);
                let rows: Vec<u8> = (0..to * row_bytes)
                    .map(|at| sum(&axis, at / row_bytes, |row| pixels[row * row_bytes + at % row_bytes]))
                    .collect();
                let columns: Vec<u8> = (0..to * row_bytes)
                    .map(|at| {
                        let (row, output, channel) = (at / CHANNELS / to, at / CHANNELS % to, at % CHANNELS);
                        sum(&axis, output, |column| pixels[(row * from + column) * CHANNELS + channel])
                    })
                    .collect();
                for run in [run, run_portable] {
                    got.fill(0);
                    run(&axis, Pass::Rows { row_bytes }, &pixels, &mut got);
                    assert_eq!(got, rows, "{from} to {to} rows of {other}");
                    got.fill(0);
                    run(&axis, Pass::Columns { tile: &mut tile }, &pixels, &mut got);
                    assert_eq!(got, columns, "{from} to {to} columns of {other}");
                }
            }
        }
    }

    #[test]
    fn weights_fit_the_accumulator() {
        let mut axis = Axis::default();
        for (from, to) in [(1, 7), (5, 3), (100, 7), (7, 100), (32_768, 14), (14, 32_768), (640, 294)] {
            axis.set(from, to);
            for weights in axis.weights.chunks_exact(axis.taps) {
                let reach: i64 = weights.iter().map(|weight| i64::from(weight.abs())).sum();
                assert!(reach * 255 + i64::from(HALF) <= i64::from(i32::MAX), "{from} to {to}");
            }
        }
    }
}
