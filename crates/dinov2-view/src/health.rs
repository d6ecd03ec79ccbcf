//! The health of the pipeline, judged by the statistics that it reports: time since the last report and since the last new frame.

use std::time::{Duration, Instant};

use dinov2_io::LiveStats;

/// The newest statistics of the pipeline, and when they came.
pub(crate) struct Health {
    silence_timeout: Duration,
    stats: Option<LiveStats>,
    /// Time of the last report.
    last_update: Instant,
    /// Time of the last report with a new frame.
    last_frame: Option<Instant>,
}

impl Health {
    pub(crate) fn new(silence_timeout: Duration) -> Self {
        Self { silence_timeout, stats: None, last_update: Instant::now(), last_frame: None }
    }

    pub(crate) fn update(&mut self, stats: &LiveStats) {
        let now = Instant::now();
        let before = self.stats.as_ref().map_or(0, |stats| stats.frames);
        if stats.frames != before {
            self.last_frame = Some(now);
        }
        self.last_update = now;
        match &mut self.stats {
            Some(kept) => kept.clone_from(stats),
            None => self.stats = Some(stats.clone()),
        }
    }

    pub(crate) fn stats(&self) -> Option<&LiveStats> {
        self.stats.as_ref()
    }

    /// The problem as text; None while frames arrive.
    pub(crate) fn trouble(&self) -> Option<String> {
        let silence = self.last_update.elapsed();
        if silence > self.silence_timeout {
            return Some(format!("no statistics from the pipeline for {:.1} s", silence.as_secs_f64()));
        }
        match self.last_frame.map(|last| last.elapsed()) {
            None => Some(String::from("no frame yet")),
            Some(gap) if gap > self.silence_timeout => {
                Some(format!("no frame for {:.1} s", gap.as_secs_f64()))
            }
            Some(_) => None,
        }
    }
}
