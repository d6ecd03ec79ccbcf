//! Statistics of a live run, for the page, recordings and metrics.

use serde::{Deserialize, Serialize};

/// Losses of a source since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Frames that were replaced by a newer one before they were taken.
    pub stale: u64,
    /// Frames that the driver counted but did not deliver.
    pub missed: u64,
    /// Frames that could not be used: broken JPEGs, buffers marked as faulty.
    pub corrupt: u64,
    /// Number of times that the device was reopened.
    pub reopened: u64,
}

/// Frames without features, by reason, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// A newer frame came before the engine was free.
    pub engine_busy: u64,
    /// Features that a busy sink did not take.
    pub sink_busy: u64,
    /// Frames above the requested rate.
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

/// State of a live run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveStats {
    /// Seconds since the run began.
    pub uptime_s: f64,
    /// Frames with features so far.
    pub frames: u64,
    /// Frames with features per second, recently.
    pub fps: f64,
    /// Time from capture to features, recently, in milliseconds.
    pub latency_ms: Quantiles,
    /// Time in the engine, recently, in milliseconds.
    pub extract_ms: Quantiles,
    /// Frames that were dropped.
    pub drops: Drops,
    /// Losses of the sources.
    pub losses: Losses,
    /// Temperature of the hottest thermal zone in degrees Celsius, if the system reports it.
    pub temperature_c: Option<f64>,
    /// Whether the processor is throttled because of heat, if the system reports it.
    pub throttled: Option<bool>,
}
