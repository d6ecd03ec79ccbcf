//! YUV to RGB, ITU-R BT.601, in 16-bit fixed point. Chroma is repeated, not interpolated.

/// Range of the luma and chroma values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum YuvRange {
    /// Luma 16..=235, chroma 16..=240: video.
    Limited,
    /// 0..=255: JPEG.
    Full,
}

/// Bits after the binary point. 255 * 2.02 * 2^16 < 2^26 fits i32.
const POINT: i32 = 16;

/// `rgb = [luma * (y - black) + red_v * v, ..., ...]` with `u`, `v` centred on zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct YuvMatrix {
    black: i32,
    luma: i32,
    red_v: i32,
    green_u: i32,
    green_v: i32,
    blue_u: i32,
}

impl YuvMatrix {
    /// Coefficients of ITU-R BT.601: Kr = 0.299, Kb = 0.114.
    pub(crate) fn bt601(range: YuvRange) -> Self {
        let (kr, kb) = (0.299_f64, 0.114_f64);
        let kg = 1.0 - kr - kb;
        let (black, luma, chroma) = match range {
            YuvRange::Limited => (16, 255.0 / 219.0, 255.0 / 224.0),
            YuvRange::Full => (0, 1.0, 1.0),
        };
        let fixed = |value: f64| (value * f64::from(1 << POINT)).round() as i32;
        Self {
            black,
            luma: fixed(luma),
            red_v: fixed(chroma * 2.0 * (1.0 - kr)),
            green_u: fixed(-chroma * 2.0 * (1.0 - kb) * kb / kg),
            green_v: fixed(-chroma * 2.0 * (1.0 - kr) * kr / kg),
            blue_u: fixed(chroma * 2.0 * (1.0 - kb)),
        }
    }

    #[inline(always)]
    pub(crate) fn rgb(self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let half = 1 << (POINT - 1);
        let luma = (i32::from(y) - self.black) * self.luma + half;
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let clip = |value: i32| (value >> POINT).clamp(0, 255) as u8;
        [
            clip(luma + self.red_v * v),
            clip(luma + self.green_u * u + self.green_v * v),
            clip(luma + self.blue_u * u),
        ]
    }
}

/// Where the chroma planes of an image lie and how far they are subsampled.
#[derive(Clone, Copy)]
pub(crate) struct Chroma<'a> {
    /// `u` samples; sample `i` of a row is at `i * step`.
    pub(crate) u: &'a [u8],
    /// `v` samples, likewise.
    pub(crate) v: &'a [u8],
    /// Bytes from one sample to the next: 1 in planes of their own, 2 where u and v alternate.
    pub(crate) step: usize,
    /// Bytes of a row of samples.
    pub(crate) row_bytes: usize,
    /// log2 of the luma columns per sample.
    pub(crate) shift_x: usize,
    /// log2 of the luma rows per sample.
    pub(crate) shift_y: usize,
}

/// luma: `[height, width]`; rgb: `[height, width, 3]`.
pub(crate) fn rgb_from_planes(
    matrix: YuvMatrix,
    width_px: usize,
    luma: &[u8],
    chroma: Chroma<'_>,
    rgb: &mut [u8],
) {
    let rows = luma.chunks_exact(width_px).zip(rgb.chunks_exact_mut(width_px * 3));
    for (row, (luma, rgb)) in rows.enumerate() {
        let start = (row >> chroma.shift_y) * chroma.row_bytes;
        let (u, v) = (&chroma.u[start..], &chroma.v[start..]);
        for (column, (y, pixel)) in luma.iter().zip(rgb.chunks_exact_mut(3)).enumerate() {
            let sample = (column >> chroma.shift_x) * chroma.step;
            pixel.copy_from_slice(&matrix.rgb(*y, u[sample], v[sample]));
        }
    }
}

/// luma: `[height, width]`; rgb: `[height, width, 3]`, grey.
pub(crate) fn rgb_from_grey(luma: &[u8], rgb: &mut [u8], range: YuvRange) {
    let matrix = YuvMatrix::bt601(range);
    for (y, pixel) in luma.iter().zip(rgb.chunks_exact_mut(3)) {
        pixel.copy_from_slice(&matrix.rgb(*y, 128, 128));
    }
}

/// yuyv: `[height, width / 2, 4]` as y0 u y1 v; rgb: `[height, width, 3]`.
pub(crate) fn rgb_from_yuyv(yuyv: &[u8], rgb: &mut [u8]) {
    let matrix = YuvMatrix::bt601(YuvRange::Limited);
    for (quad, pixels) in yuyv.chunks_exact(4).zip(rgb.chunks_exact_mut(6)) {
        let (left, right) = pixels.split_at_mut(3);
        left.copy_from_slice(&matrix.rgb(quad[0], quad[1], quad[3]));
        right.copy_from_slice(&matrix.rgb(quad[2], quad[1], quad[3]));
    }
}
