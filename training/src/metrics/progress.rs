//! The line for people on stderr.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Steps over which speed is averaged: enough to smooth a slow batch, few enough to follow a change.
const WINDOW_STEPS: usize = 50;
/// How often a line is written where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How far a run is: loss, images per second, time left. A bar that redraws itself on a terminal; elsewhere (a log, a pipe) a
/// plain line every ten seconds.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    speed: Speed,
    begun: Instant,
    /// When the last plain line was written, since `begun`.
    told: Option<Duration>,
}

impl Progress {
    /// A run of `total` steps, of which `done` are done.
    pub fn new(total: u64, done: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(done);
            match ProgressStyle::with_template("{bar:30} {msg}") {
                Ok(style) => bar.with_style(style),
                // The template is ours; a bar in the default style beats an abort.
                Err(_) => bar,
            }
        });
        let mut speed = Speed::default();
        speed.add(Duration::ZERO, done, 0);
        Self { bar, total, speed, begun: Instant::now(), told: None }
    }

    /// `done` steps are done now, the last of which looked at `images` images (of all ranks) and had this loss, where something learns.
    pub fn step(&mut self, done: u64, loss: Option<f64>, images: usize) {
        let now = self.begun.elapsed();
        self.speed.add(now, done, images);
        let line = self.line(done, loss);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(line);
        } else if done >= self.total || self.told.is_none_or(|told| now - told >= LINE_EVERY) {
            self.told = Some(now);
            write_line(&line);
        }
    }

    /// A line for people that stays, above the bar.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| write_line(line)),
            None => write_line(line),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, done: u64, loss: Option<f64>) -> String {
        let (steps, images) = self.speed.per_second();
        let left = self.total.saturating_sub(done) as f64 / steps;
        let loss = loss.map_or_else(String::new, |loss| format!(" loss {loss:.4}"));
        format!("step {done}/{}{loss} {images:.1} images/s ETA {}", self.total, duration(left))
    }
}

/// One that nobody can read any more is no reason to end a run.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Steps and images over the last [`WINDOW_STEPS`].
#[derive(Debug, Default)]
struct Speed {
    /// When, steps done by then, images of the step.
    window: VecDeque<(Duration, u64, usize)>,
}

impl Speed {
    fn add(&mut self, now: Duration, done: u64, images: usize) {
        if self.window.len() > WINDOW_STEPS {
            self.window.pop_front();
        }
        self.window.push_back((now, done, images));
    }

    /// Steps and images per second; zeros before the first step.
    fn per_second(&self) -> (f64, f64) {
        let (Some(first), Some(last)) = (self.window.front(), self.window.back()) else { return (0.0, 0.0) };
        let seconds = (last.0 - first.0).as_secs_f64();
        if seconds == 0.0 {
            return (0.0, 0.0);
        }
        // The first entry's images were seen before its time.
        let images: usize = self.window.iter().skip(1).map(|(_, _, images)| images).sum();
        ((last.1.saturating_sub(first.1)) as f64 / seconds, images as f64 / seconds)
    }
}

/// `42s`, `7m05s`, `3h07m`, `2d03h`; `?` where it is unknown.
fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "?".into();
    }
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_that_of_the_window() {
        let mut speed = Speed::default();
        assert_eq!(speed.per_second(), (0.0, 0.0));
        speed.add(Duration::ZERO, 10, 0);
        assert_eq!(speed.per_second(), (0.0, 0.0));
        speed.add(Duration::from_secs(2), 11, 64);
        assert_eq!(speed.per_second(), (0.5, 32.0));
        // Twice as fast from then on: after a whole window nothing is left of the beginning.
        for step in 1..=2 * WINDOW_STEPS as u64 {
            speed.add(Duration::from_secs(2 + step), 11 + step, 64);
        }
        assert_eq!(speed.per_second(), (1.0, 64.0));
    }

    #[test]
    fn a_line_tells_step_loss_speed_and_time_left() {
        let mut progress = Progress::new(100, 40);
        assert_eq!(progress.line(40, Some(f64::NAN)), "step 40/100 loss NaN 0.0 images/s ETA ?");
        progress.speed.add(Duration::from_secs(4), 42, 32);
        assert_eq!(progress.line(42, Some(0.12345)), "step 42/100 loss 0.1235 8.0 images/s ETA 1m56s");
        assert_eq!(progress.line(42, None), "step 42/100 8.0 images/s ETA 1m56s");
    }

    #[test]
    fn durations() {
        let told = [0.4, 59.6, 3_599.0, 11_220.0, 187_200.0, f64::INFINITY].map(duration);
        assert_eq!(told, ["0s", "1m00s", "59m59s", "3h07m", "2d04h", "?"]);
    }
}
