//! Chooses the camera mode that is nearest to the requested one.

use super::facts::{CameraFormat, CameraPixels, CameraRates, CameraSize, FORMATS};

/// The requested mode. Only the format may be unset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Width and height in pixels.
    pub(super) size: (usize, usize),
    pub(super) fps: f64,
    pub(super) format: Option<CameraFormat>,
}

/// A mode that a camera offers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mode {
    pub(super) format: CameraFormat,
    pub(super) code: [u8; 4],
    /// Width and height in pixels.
    pub(super) size: (usize, usize),
    /// None if the driver does not report it.
    pub(super) fps: Option<f64>,
}

/// A rate counts as reached from here on: cameras round 30 to 29.97 or 28.6.
const REACHED: f64 = 0.95;

/// In this order: colour rather than grey, the nearest size, a rate that is reached or comes nearest, uncompressed,
/// the nearest rate. None if no format is decoded here, or not the one that is asked for.
pub(super) fn choose(offers: &[CameraPixels], request: Request) -> Option<Mode> {
    let modes = offers.iter().flat_map(|offer| modes(offer, request));
    let ranked = modes.map(|mode| (rank(&mode, request), mode));
    let best = ranked.min_by(|(left, _), (right, _)| {
        let orders = left.iter().zip(right).map(|(left, right)| left.total_cmp(right));
        orders.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
    best.map(|(_, mode)| mode)
}

/// The modes of a format, one per size, each at the nearest rate.
fn modes(offer: &CameraPixels, request: Request) -> impl Iterator<Item = Mode> {
    let known = FORMATS.iter().find(|(.., code)| offer.code.as_bytes() == code);
    let wanted = known.filter(|(format, ..)| request.format.is_none_or(|wished| wished == *format));
    wanted.into_iter().flat_map(move |(format, _, code)| {
        let mode = |size, fps| Mode { format: *format, code: *code, size, fps };
        // If the driver lists no sizes, the requested size is set; the driver then chooses one.
        let unlisted = offer.sizes.is_empty().then(|| mode(request.size, None));
        let of_size = move |size: &CameraSize| {
            mode(nearest_size(size, request.size), nearest_rate(&size.rates, request.fps))
        };
        offer.sizes.iter().map(of_size).chain(unlisted)
    })
}

/// Smaller is better, the first value first.
fn rank(mode: &Mode, request: Request) -> [f64; 5] {
    let away = |got: usize, wished: usize| (got as f64 / wished as f64).ln().abs();
    let grey = f64::from(u8::from(mode.format == CameraFormat::Grey));
    let size = away(mode.size.0, request.size.0) + away(mode.size.1, request.size.1);
    let rate = mode.fps.map_or(0.0, |fps| (request.fps / fps).ln());
    let shortfall = if rate > -REACHED.ln() { rate } else { 0.0 };
    let preference = FORMATS.iter().position(|(.., code)| *code == mode.code).unwrap_or(FORMATS.len());
    [grey, size, shortfall, preference as f64, rate.abs()]
}

/// The size of a range that is nearest to what is asked for.
pub(super) fn nearest_size(range: &CameraSize, wished: (usize, usize)) -> (usize, usize) {
    let side = |smallest: usize, largest: usize, step: usize, wished: usize| {
        let above = wished.clamp(smallest, largest.max(smallest)) - smallest;
        let step = step.max(1);
        let rounded = smallest + (above + step / 2) / step * step;
        if rounded > largest { rounded.saturating_sub(step).max(smallest) } else { rounded }
    };
    (
        side(range.smallest.0, range.largest.0, range.step.0, wished.0),
        side(range.smallest.1, range.largest.1, range.step.1, wished.1),
    )
}

/// The rate that is nearest to what is asked for; of two equally near, the higher.
fn nearest_rate(rates: &CameraRates, wished: f64) -> Option<f64> {
    match rates {
        CameraRates::Unknown => None,
        CameraRates::FpsBetween(least, most) => Some(wished.min(*most).max(*least)),
        CameraRates::Fps(rates) => {
            let away = |fps: &f64| (fps / wished).ln().abs();
            let nearer =
                |left: &&f64, right: &&f64| away(left).total_cmp(&away(right)).then(right.total_cmp(left));
            rates.iter().min_by(nearer).copied()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: usize, height: usize, fps: &[f64]) -> CameraSize {
        let side = (width, height);
        CameraSize { smallest: side, largest: side, step: (1, 1), rates: CameraRates::Fps(fps.to_vec()) }
    }

    fn pixels(code: &str, sizes: &[CameraSize]) -> CameraPixels {
        CameraPixels { code: code.into(), description: String::new(), format: None, sizes: sizes.to_vec() }
    }

    /// What a common USB camera offers: large sizes fast only as JPEG.
    fn webcam() -> Vec<CameraPixels> {
        vec![
            pixels("MJPG", &[size(1920, 1080, &[30.0, 15.0]), size(640, 480, &[30.0, 15.0])]),
            pixels("H264", &[size(640, 480, &[120.0])]),
            pixels(
                "YUYV",
                &[
                    size(640, 480, &[30.0, 24.0, 15.0]),
                    size(1280, 720, &[10.0, 5.0]),
                    size(1920, 1080, &[5.0]),
                ],
            ),
        ]
    }

    fn chosen(
        offers: &[CameraPixels],
        size: (usize, usize),
        fps: f64,
    ) -> (&'static str, (usize, usize), f64) {
        let mode = choose(offers, Request { size, fps, format: None }).unwrap();
        let name = FORMATS.iter().find(|(format, ..)| *format == mode.format).unwrap().1;
        (name, mode.size, mode.fps.unwrap())
    }

    #[test]
    fn uncompressed_where_it_is_fast_enough() {
        assert_eq!(chosen(&webcam(), (640, 480), 30.0), ("YUYV", (640, 480), 30.0));
        assert_eq!(chosen(&webcam(), (1920, 1080), 30.0), ("MJPEG", (1920, 1080), 30.0));
        assert_eq!(chosen(&webcam(), (1920, 1080), 5.0), ("YUYV", (1920, 1080), 5.0));
        assert_eq!(chosen(&webcam(), (700, 500), 25.0), ("YUYV", (640, 480), 24.0));
        // Nothing gives 90: what comes nearest.
        assert_eq!(chosen(&webcam(), (640, 480), 90.0), ("YUYV", (640, 480), 30.0));
        // 29.97 is 30 for people.
        let ntsc = [pixels("NV12", &[size(640, 480, &[29.97])]), pixels("MJPG", &[size(640, 480, &[30.0])])];
        assert_eq!(chosen(&ntsc, (640, 480), 30.0), ("NV12", (640, 480), 29.97));
    }

    #[test]
    fn a_format_that_is_asked_for_is_taken_or_none() {
        let request = Request { size: (640, 480), fps: 30.0, format: Some(CameraFormat::Mjpeg) };
        assert_eq!(choose(&webcam(), request).unwrap().format, CameraFormat::Mjpeg);
        assert!(choose(&webcam(), Request { format: Some(CameraFormat::Nv12), ..request }).is_none());
        assert!(choose(&webcam()[1..2], Request { format: None, ..request }).is_none());
    }

    #[test]
    fn colour_rather_than_grey() {
        let offers = [pixels("GREY", &[size(640, 480, &[30.0])]), pixels("MJPG", &[size(320, 240, &[15.0])])];
        assert_eq!(chosen(&offers, (640, 480), 30.0), ("MJPEG", (320, 240), 15.0));
        assert_eq!(chosen(&offers[..1], (640, 480), 30.0), ("GREY", (640, 480), 30.0));
    }

    #[test]
    fn ranges_are_rounded_to_their_steps() {
        let rates = CameraRates::FpsBetween(1.0, 60.0);
        let range =
            CameraSize { smallest: (16, 16), largest: (1928, 1208), step: (8, 2), rates: rates.clone() };
        assert_eq!(nearest_size(&range, (645, 481)), (648, 482));
        assert_eq!(nearest_size(&range, (1, 9999)), (16, 1208));
        let uneven = CameraSize { smallest: (10, 10), largest: (25, 25), step: (10, 10), rates };
        assert_eq!(nearest_size(&uneven, (25, 11)), (20, 10));
        let offers = [pixels("NV12", &[range])];
        assert_eq!(chosen(&offers, (640, 480), 90.0), ("NV12", (640, 480), 60.0));
        let silent = CameraSize { rates: CameraRates::Unknown, ..offers[0].sizes[0].clone() };
        let mode =
            choose(&[pixels("NV12", &[silent])], Request { size: (640, 480), fps: 30.0, format: None });
        assert_eq!(mode.unwrap().fps, None);
        let mode = choose(&[pixels("NV12", &[])], Request { size: (640, 480), fps: 30.0, format: None });
        assert_eq!(mode.unwrap().size, (640, 480));
    }

    #[test]
    fn of_two_rates_as_near_the_faster() {
        assert_eq!(nearest_rate(&CameraRates::Fps(vec![15.0, 60.0]), 30.0), Some(60.0));
        assert_eq!(nearest_rate(&CameraRates::Fps(vec![60.0, 25.0]), 30.0), Some(25.0));
        assert_eq!(nearest_rate(&CameraRates::Fps(vec![]), 30.0), None);
    }
}
