//! Status of a run: notes, skipped inputs and statistics for the user on stderr, and notifications for systemd.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use dinov2_edge::io::LiveStats;
use dinov2_edge::pipeline::{Observation, Summary};
use indicatif::ProgressBar;

use dinov2_files::chain;

/// Time between two lines of statistics without a terminal.
const LINE_PERIOD: Duration = Duration::from_secs(60);

/// Reports the status of a run to the user and the service manager.
pub(super) struct Status {
    live: bool,
    bar: ProgressBar,
    last_line: Instant,
    ready: bool,
    first_skipped: Option<String>,
}

impl Status {
    pub(super) fn new(live: bool, bar: ProgressBar) -> Self {
        Self { live, bar, last_line: Instant::now(), ready: false, first_skipped: None }
    }

    pub(super) fn observe(&mut self, observation: Observation<'_>) {
        let stats = observation.stats;
        for note in observation.notes {
            self.say(&format!("note: {note}"));
        }
        for error in observation.skipped {
            let reason = chain(&error);
            self.say(&format!("skipped: {reason}"));
            self.first_skipped.get_or_insert(reason);
        }
        if self.live {
            self.tell(stats);
        }
        service::alive();
        if stats.frames > 0 && !self.ready {
            self.ready = true;
            service::ready();
        }
    }

    /// The error of the first skipped input.
    pub(super) fn first_skipped(&self) -> Option<&str> {
        self.first_skipped.as_deref()
    }

    fn tell(&mut self, stats: &LiveStats) {
        if std::io::stderr().is_terminal() {
            self.bar.set_position(stats.frames);
            self.bar.set_message(sentence(stats));
        } else if self.last_line.elapsed() >= LINE_PERIOD {
            self.last_line = Instant::now();
            self.say(&sentence(stats));
        }
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| tell!("{line}"));
    }

    /// Removes the progress bar before an error is printed.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints the summary.
    pub(super) fn finish(&self, summary: &Summary) {
        self.bar.finish_and_clear();
        let stats = &summary.stats;
        let (frames, seconds) = (stats.frames, stats.uptime_s);
        let skipped = match summary.skipped {
            0 => String::new(),
            1 => ", 1 input skipped".into(),
            count => format!(", {count} inputs skipped"),
        };
        tell!("{frames} frames in {seconds:.1} s{skipped}: {}", sentence(stats));
    }
}

fn sentence(stats: &LiveStats) -> String {
    let LiveStats { fps, latency_ms, extract_ms, drops, losses, .. } = stats;
    let mut words = vec![
        format!("{fps:.1} fps"),
        format!("latency {:.1} ms (p95 {:.1}, p99 {:.1})", latency_ms.p50, latency_ms.p95, latency_ms.p99),
        format!("engine {:.1} ms", extract_ms.p50),
    ];
    let counted = [
        (drops.engine_busy + losses.stale, "dropped (engine busy)"),
        (drops.rate_limit, "dropped (rate limit)"),
        (drops.sink_busy, "dropped (output busy)"),
        (losses.missed, "lost by the driver"),
        (losses.corrupt, "corrupt"),
        (losses.reopened, "times reopened"),
    ];
    words.extend(
        counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")),
    );
    words.extend(stats.temperature_c.map(|degrees| format!("{degrees:.0} °C")));
    if stats.throttled == Some(true) {
        words.push("throttled".into());
    }
    words.join(", ")
}

/// Notifications for systemd (`sd_notify`); without `NOTIFY_SOCKET` they do nothing.
#[cfg(target_os = "linux")]
mod service {
    use sd_notify::{NotifyState, notify};

    pub(super) fn ready() {
        tell(NotifyState::Ready);
    }

    pub(super) fn alive() {
        tell(NotifyState::Watchdog);
    }

    pub(crate) fn stopping() {
        tell(NotifyState::Stopping);
    }

    fn tell(state: NotifyState<'_>) {
        // Notifications are optional.
        let _ = notify(&[state]);
    }
}

#[cfg(not(target_os = "linux"))]
mod service {
    pub(super) fn ready() {}
    pub(super) fn alive() {}
    pub(crate) fn stopping() {}
}

pub(super) use service::stopping;
