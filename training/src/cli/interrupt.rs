//! Signals: the first stops a run after its work is saved, a second one ends the program at once.

use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use training::stop::Stop;

/// Number of SIGINT, which is Ctrl-C, on every system.
const SIGINT: u8 = 2;
/// Signals within this time count as one: launchers (torchrun, SLURM) repeat a signal that the process group already received.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// State of signal handling.
#[derive(Clone)]
pub(super) struct Interrupts {
    /// Set by the first signal.
    pub(super) stop: Stop,
    /// Number and time of the first signal.
    first: Arc<Mutex<Option<(u8, Instant)>>>,
    /// Lines to write; `None` in processes other than the first.
    messages: Option<Messages>,
}

/// Lines to write at the first signal.
#[derive(Clone)]
pub(super) struct Messages {
    /// If the run continues until its work is saved.
    pub(super) stopping: String,
    /// If the program ends at once.
    pub(super) at_once: String,
}

impl Interrupts {
    /// Handles SIGINT and, on Unix, SIGTERM and SIGHUP from now on, except signals that the program was started to ignore
    /// (`nohup`, background jobs). Must be called before other threads start: they inherit the blocked signals.
    pub(super) fn listen(messages: Option<Messages>) -> anyhow::Result<Self> {
        let interrupts = Self { stop: Stop::default(), first: Arc::default(), messages };
        #[cfg(unix)]
        unix::listen(interrupts.clone()).context("signals")?;
        let handled = interrupts.clone();
        ctrlc::set_handler(move || handled.handle(SIGINT)).context("signals")?;
        Ok(interrupts)
    }

    /// Exit status after a signal: 128 plus its number.
    pub(super) fn exit_code(&self) -> ExitCode {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        ExitCode::from(128 + first.map_or(SIGINT, |(signal, _)| signal))
    }

    fn handle(&self, signal: u8) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = match *first {
            Some((_, at)) if at.elapsed() < ONE_REQUEST => return,
            Some(_) => end(signal),
            None => {
                *first = Some((signal, Instant::now()));
                self.messages.as_ref()
            }
        };
        if self.stop.request() {
            messages.inspect(|messages| write_line(&messages.stopping));
        } else {
            messages.inspect(|messages| write_line(&messages.at_once));
            end(signal);
        }
    }
}

/// A closed terminal (SIGHUP) must not fail the run.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn end(signal: u8) -> ! {
    std::process::exit(128 + i32::from(signal))
}

/// SIGTERM and SIGHUP. They are blocked and waited for, because `ctrlc` does not report which signal came.
#[cfg(unix)]
mod unix {
    use nix::sys::signal::{SigSet, Signal};

    use super::Interrupts;

    pub(super) fn listen(interrupts: Interrupts) -> anyhow::Result<()> {
        let ignored = ignored();
        let is_ignored = |signal: Signal| ignored >> (signal as u32 - 1) & 1 == 1;
        // `ctrlc` would handle SIGINT even where it is ignored.
        let mut blocked = SigSet::from_iter([Signal::SIGTERM, Signal::SIGHUP]);
        if is_ignored(Signal::SIGINT) {
            blocked.add(Signal::SIGINT);
        }
        blocked.thread_block()?;
        let handled: SigSet =
            [Signal::SIGTERM, Signal::SIGHUP].into_iter().filter(|signal| !is_ignored(*signal)).collect();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            while let Ok(signal) = handled.wait() {
                interrupts.handle(signal as u8);
            }
        })?;
        Ok(())
    }

    /// Ignored signals at program start, bit 0 for signal 1; 0 where /proc does not tell.
    fn ignored() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    }
}
