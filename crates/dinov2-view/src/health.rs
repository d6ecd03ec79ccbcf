use std::time::{Duration, Instant};

use dinov2_io::LiveStats;

/// Whether the pipeline lives.
pub(crate) struct Pulse {
    silence_timeout: Duration,
    stats: Option<LiveStats>,
    /// When statistics came last.
    updated: Instant,
    /// When statistics last told of a new frame.
    moved: Option<Instant>,
}

impl Pulse {
    pub(crate) fn new(silence_timeout: Duration) -> Self {
        Self { silence_timeout, stats: None, updated: Instant::now(), moved: None }
    }

    pub(crate) fn update(&mut self, stats: &LiveStats) {
        let now = Instant::now();
        let before = self.stats.as_ref().map_or(0, |stats| stats.frames);
        if stats.frames != before {
            self.moved = Some(now);
        }
        self.updated = now;
        match &mut self.stats {
            Some(kept) => kept.clone_from(stats),
            None => self.stats = Some(stats.clone()),
        }
    }

    pub(crate) fn stats(&self) -> Option<&LiveStats> {
        self.stats.as_ref()
    }

    /// What is wrong, in words; None if frames come.
    pub(crate) fn trouble(&self) -> Option<String> {
        let silent = self.updated.elapsed();
        if silent > self.silence_timeout {
            return Some(format!("the pipeline has told nothing for {:.1} s", silent.as_secs_f64()));
        }
        match self.moved.map(|moved| moved.elapsed()) {
            None => Some(String::from("no frame has come yet")),
            Some(still) if still > self.silence_timeout => {
                Some(format!("no frame for {:.1} s", still.as_secs_f64()))
            }
            Some(_) => None,
        }
    }
}
