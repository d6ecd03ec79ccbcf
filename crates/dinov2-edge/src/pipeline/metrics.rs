//! Counters and recent times of a pipeline, from which [`LiveStats`] are computed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dinov2_io::{Drops, LiveStats, Losses, Quantiles};

use super::Times;
use super::thermals::Thermals;
use dinov2_core::statistics::{quantile, sorted};

/// Time window of rates and quantiles.
const WINDOW: Duration = Duration::from_secs(10);
/// Maximum number of frames in the window.
const WINDOW_FRAMES: usize = 1_024;

/// Metrics of a pipeline; updated by all workers.
#[derive(Debug)]
pub(crate) struct Metrics {
    start: Instant,
    frames: AtomicU64,
    engine_busy: AtomicU64,
    sink_busy: AtomicU64,
    rate_limit: AtomicU64,
    recent: Mutex<VecDeque<Recent>>,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    done: Instant,
    latency_ms: f64,
    extract_ms: f64,
}

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    EngineBusy,
    SinkBusy,
    RateLimit,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            frames: AtomicU64::new(0),
            engine_busy: AtomicU64::new(0),
            sink_busy: AtomicU64::new(0),
            rate_limit: AtomicU64::new(0),
            recent: Mutex::new(VecDeque::with_capacity(WINDOW_FRAMES)),
        }
    }

    /// Counts a frame with features and returns its number.
    pub(crate) fn extracted(&self, done: Instant, times: &Times) -> u64 {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let recent =
            Recent { done, latency_ms: milliseconds(times.latency), extract_ms: milliseconds(times.extract) };
        let mut window = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if window.len() == WINDOW_FRAMES {
            window.pop_front();
        }
        window.push_back(recent);
        drop(window);
        self.frames.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn dropped(&self, reason: Dropped) {
        let counter = match reason {
            Dropped::EngineBusy => &self.engine_busy,
            Dropped::SinkBusy => &self.sink_busy,
            Dropped::RateLimit => &self.rate_limit,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// The statistics now. `losses`: sum over all sources.
    pub(crate) fn stats(&self, losses: Losses, thermals: Thermals) -> LiveStats {
        let now = Instant::now();
        let mut window = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        while window.front().is_some_and(|oldest| now - oldest.done > WINDOW) {
            window.pop_front();
        }
        let recent: Vec<Recent> = window.iter().copied().collect();
        drop(window);
        LiveStats {
            uptime_s: (now - self.start).as_secs_f64(),
            frames: self.frames(),
            fps: rate(&recent, now),
            latency_ms: quantiles(recent.iter().map(|frame| frame.latency_ms).collect()),
            extract_ms: quantiles(recent.iter().map(|frame| frame.extract_ms).collect()),
            drops: Drops {
                engine_busy: self.engine_busy.load(Ordering::Relaxed),
                sink_busy: self.sink_busy.load(Ordering::Relaxed),
                rate_limit: self.rate_limit.load(Ordering::Relaxed),
            },
            losses,
            temperature_c: thermals.temperature_c,
            throttled: thermals.throttled,
        }
    }
}

/// Frames per second over the window. If the newest frame is older than the mean interval, the span ends now, so that the rate falls
/// when frames stop.
fn rate(recent: &[Recent], now: Instant) -> f64 {
    let [first, .., last] = recent else { return 0.0 };
    let intervals = (recent.len() - 1) as f64;
    let span = (last.done - first.done).as_secs_f64();
    let waiting = (now - last.done).as_secs_f64() - span / intervals;
    let span = span + waiting.max(0.0);
    if span > 0.0 { intervals / span } else { 0.0 }
}

fn quantiles(samples: Vec<f64>) -> Quantiles {
    let sorted = sorted(samples);
    let at = |share| quantile(&sorted, share);
    Quantiles { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(done: Instant) -> Recent {
        Recent { done, latency_ms: 1.0, extract_ms: 1.0 }
    }

    #[test]
    fn the_rate_falls_when_frames_stop() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let frames: Vec<Recent> = (0..=10).map(|index| recent(after(100 * index))).collect();
        assert!((rate(&frames, after(1_000)) - 10.0).abs() < 1e-9);
        assert!((rate(&frames, after(1_050)) - 10.0).abs() < 1e-9, "the next is not due yet");
        assert!((rate(&frames, after(2_100)) - 5.0).abs() < 1e-9, "10 intervals in 2 s");
        assert_eq!(rate(&frames[..1], after(2_000)), 0.0);
    }
}
