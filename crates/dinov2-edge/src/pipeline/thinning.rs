//! Reduces the frame rate of files by the timestamps of their frames.

use std::path::PathBuf;
use std::time::Duration;

use dinov2_io::Frame;

/// A frame may be early by this fraction of a period (1/8), because timestamps in milliseconds are rounded.
const EARLY_PART: u64 = 8;

/// Keeps the first frame of each period. Periods are counted from the first frame of an input.
#[derive(Debug, Default)]
pub(crate) struct Thinning {
    period_ns: Option<u64>,
    path: Option<PathBuf>,
    start_ns: u64,
    last_ns: u64,
    period: Option<u64>,
}

impl Thinning {
    /// Without a period, every frame is kept.
    pub(crate) fn new(period: Option<Duration>) -> Self {
        let period_ns = period.map(|period| u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1));
        Self { period_ns, ..Self::default() }
    }

    /// True for a frame of a file with timestamps; other frames are limited by the clock.
    pub(crate) fn applies_to(frame: &Frame) -> bool {
        frame.captured.is_none() && frame.capture_ns.is_some()
    }

    /// True if `frame` is the first of its period. Live frames and frames without timestamps are always kept.
    pub(crate) fn keeps(&mut self, frame: &Frame) -> bool {
        let (Some(period_ns), true, Some(time_ns)) =
            (self.period_ns, Self::applies_to(frame), frame.capture_ns)
        else {
            return true;
        };
        if self.period.is_none() || time_ns < self.last_ns || frame.path != self.path {
            self.path.clone_from(&frame.path);
            (self.start_ns, self.period) = (time_ns, None);
        }
        self.last_ns = time_ns;
        let since_start_ns = (time_ns - self.start_ns).saturating_add(period_ns / EARLY_PART);
        let period = since_start_ns / period_ns;
        let keeps = self.period.is_none_or(|last| period > last);
        self.period = Some(period);
        keeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(rate: f64, path: &str, times_ms: &[u64], thinning: &mut Thinning) -> Vec<u64> {
        *thinning = match thinning.period_ns {
            None => Thinning::new(Some(Duration::from_secs_f64(1.0 / rate))),
            Some(_) => std::mem::take(thinning),
        };
        let mut frame = Frame { path: Some(path.into()), ..Frame::new() };
        let keeps = |time: &&u64| {
            frame.capture_ns = Some(**time * 1_000_000);
            thinning.keeps(&frame)
        };
        times_ms.iter().filter(keeps).copied().collect()
    }

    #[test]
    fn first_frame_of_each_period() {
        let milliseconds: Vec<u64> = (0..30).map(|frame| (frame * 1000 + 15) / 30).collect();
        assert_eq!(kept(30.0, "a", &milliseconds, &mut Thinning::default()), milliseconds);
        assert_eq!(kept(10.0, "a", &milliseconds[..12], &mut Thinning::default()), [0, 100, 200, 300]);
        let uneven = [5000, 5010, 5020, 5900, 6001, 6002, 9500, 9600, 10_000];
        assert_eq!(kept(1.0, "a", &uneven, &mut Thinning::default()), [5000, 5900, 9500, 10_000]);
    }

    #[test]
    fn every_input_begins_anew() {
        let mut thinning = Thinning::default();
        assert_eq!(kept(2.0, "a", &[0, 40, 80, 500, 700], &mut thinning), [0, 500]);
        assert_eq!(kept(2.0, "b", &[900, 940, 1500], &mut thinning), [900, 1500]);
        assert_eq!(kept(2.0, "b", &[0, 10], &mut thinning), [0]);
    }

    #[test]
    fn frames_without_a_time_and_without_a_rate_are_kept() {
        let mut thinning = Thinning::new(Some(Duration::from_secs(1)));
        assert!((0..3).all(|_| thinning.keeps(&Frame::new())));
        let timed = Frame { capture_ns: Some(5), ..Frame::new() };
        assert!((0..3).all(|_| Thinning::new(None).keeps(&timed)));
    }
}
