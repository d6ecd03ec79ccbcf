//! Progress on standard error: a bar on a terminal, plain lines elsewhere.
//!
//! [`Bar`] is what every command shows; [`RunProgress`] adds the loss and the speed of a run over steps.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Steps over which speed is averaged: enough to smooth a slow batch, few enough to follow a change.
const WINDOW_STEPS: usize = 50;
/// Time between the plain lines of a run.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar on standard error that redraws itself on a terminal. Elsewhere (a log, a pipe) plain lines take its place, at most one per
/// interval.
#[derive(Debug)]
pub struct Bar {
    /// `None` where standard error is no terminal.
    drawn: Option<ProgressBar>,
    line_every: Duration,
    begun: Instant,
    /// When the last plain line was written, since `begun`.
    last_line: Option<Duration>,
}

impl Bar {
    /// A bar of `total` steps. `template`: as indicatif has them. `line_every`: least time between plain lines.
    pub fn new(total: u64, template: &str, line_every: Duration) -> Self {
        let drawn = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                // A template is ours; a bar in the default style beats an abort.
                Err(_) => bar,
            }
        });
        Self { drawn, line_every, begun: Instant::now(), last_line: None }
    }

    /// The same; the first plain line comes after the first interval.
    #[must_use]
    pub fn with_late_lines(self) -> Self {
        Self { last_line: Some(Duration::ZERO), ..self }
    }

    /// Whether plain lines take the place of the bar.
    pub fn is_plain(&self) -> bool {
        self.drawn.is_none()
    }

    /// Restarts at 0 with another message.
    pub fn restart(&self, message: impl Into<Cow<'static, str>>) {
        if let Some(bar) = &self.drawn {
            bar.reset();
            bar.set_message(message);
        }
    }

    /// Text of `{msg}` in the template.
    pub fn set_message(&self, message: impl Into<Cow<'static, str>>) {
        if let Some(bar) = &self.drawn {
            bar.set_message(message);
        }
    }

    /// Steps done.
    pub fn set_position(&self, position: u64) {
        if let Some(bar) = &self.drawn {
            bar.set_position(position);
        }
    }

    /// More steps done.
    pub fn advance(&self, steps: u64) {
        if let Some(bar) = &self.drawn {
            bar.inc(steps);
        }
    }

    /// A plain line in the place of the bar, if one is due or must be written.
    pub fn plain_line(&mut self, must: bool, line: impl FnOnce() -> String) {
        let now = self.begun.elapsed();
        let is_due = self.last_line.is_none_or(|last| now - last >= self.line_every);
        if self.is_plain() && (must || is_due) {
            self.last_line = Some(now);
            note(&line());
        }
    }

    /// Does something that writes to standard error itself.
    pub fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.drawn {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    /// A line that stays, above the bar.
    pub fn note(&self, line: &str) {
        self.suspend(|| note(line));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.drawn {
            bar.finish_and_clear();
        }
    }
}

/// A bar for a task of an evaluation over `total` of `unit`. Without a terminal, one line reports the start.
pub(crate) fn task_bar(task: &str, model: &str, total: usize, unit: &str) -> Bar {
    let template = format!("{{bar:30}} {{pos}}/{{len}} {unit} ETA {{eta}} {{msg}}");
    let mut bar = Bar::new(total as u64, &template, Duration::MAX);
    bar.set_message(format!("{task}: {model}"));
    bar.plain_line(true, || format!("{task}: {model}, {total} {unit}"));
    bar
}

/// A line on standard error. A closed standard error must not fail a run.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How far a run over steps is: loss, images per second, time left.
#[derive(Debug)]
pub struct RunProgress {
    bar: Bar,
    total: u64,
    speed: Speed,
    begun: Instant,
}

impl RunProgress {
    /// A run of `total` steps, of which `done` are done.
    pub fn new(total: u64, done: u64) -> Self {
        let bar = Bar::new(total, "{bar:30} {msg}", LINE_EVERY);
        bar.set_position(done);
        let mut speed = Speed::default();
        speed.add(Duration::ZERO, done, 0);
        Self { bar, total, speed, begun: Instant::now() }
    }

    /// `done` steps are done now. `loss` and `images`: of the last step, the latter over all processes.
    pub fn step(&mut self, done: u64, loss: Option<f64>, images: usize) {
        self.speed.add(self.begun.elapsed(), done, images);
        let line = self.line(done, loss);
        self.bar.set_position(done);
        self.bar.set_message(line.clone());
        self.bar.plain_line(done >= self.total, || line);
    }

    /// A line that stays, above the bar.
    pub fn note(&self, line: &str) {
        self.bar.note(line);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish();
    }

    fn line(&self, done: u64, loss: Option<f64>) -> String {
        let (steps, images) = self.speed.per_second();
        let left = self.total.saturating_sub(done) as f64 / steps;
        let loss = loss.map_or_else(String::new, |loss| format!(" loss {loss:.4}"));
        format!("step {done}/{}{loss} {images:.1} images/s ETA {}", self.total, duration(left))
    }
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
        let mut progress = RunProgress::new(100, 40);
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
