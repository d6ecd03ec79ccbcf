//! What a live run tells about itself: on the page, in recordings, as metrics.

use serde::{Deserialize, Serialize};

/// What a source lost and survived, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Frames that were there but no longer the newest when the source was asked.
    pub stale: u64,
    /// Frames that the driver counted but never gave.
    pub missed: u64,
    /// Frames that could not be used: broken JPEGs, buffers marked as faulty.
    pub corrupt: u64,
    /// Times that the device was opened anew.
    pub reopened: u64,
}

/// Frames that were taken but have no features, by reason, in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// A newer frame came before the engine was free.
    pub engine_busy: u64,
    /// Features that a sink did not take because it was still busy.
    pub sink_busy: u64,
    /// Above the rate that was asked for.
    pub rate_limit: u64,
}

/// Order statistics of some duration, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
}

/// How a live run is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveStats {
    /// Seconds since the run began.
    pub uptime_s: f64,
    /// Frames with features so far.
    pub frames: u64,
    /// Frames with features per second, lately.
    pub fps: f64,
    /// From capture to features, lately, in milliseconds.
    pub latency_ms: Quantiles,
    /// The engine's part of it, lately, in milliseconds.
    pub extract_ms: Quantiles,
    /// Frames that were dropped.
    pub drops: Drops,
    /// What the sources lost.
    pub losses: Losses,
    /// The hottest thermal zone, in degrees Celsius, where the system tells it.
    pub temperature_c: Option<f64>,
    /// True if the processor is being slowed down because of heat, where the system tells it.
    pub throttled: Option<bool>,
}
