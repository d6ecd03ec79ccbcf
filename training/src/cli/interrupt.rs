//! Signals: the first one ends a run with its work kept, a second one ends the program at once.

use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use training::stop::Stop;

/// Number of SIGINT, which is Ctrl-C, on every system.
const SIGINT: u8 = 2;
/// Signals within this time are one request: launchers (torchrun, SLURM) pass on what the process group has got already.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// What signals have asked for.
#[derive(Clone)]
pub(super) struct Interrupts {
    /// Asked when the first one comes.
    pub(super) stop: Stop,
    /// Number and time of the first signal.
    first: Arc<Mutex<Option<(u8, Instant)>>>,
    /// What is said, with and without work to keep; nothing by processes that leave talking to the first.
    messages: Option<Messages>,
}

/// Lines about the first signal.
#[derive(Clone)]
pub(super) struct Messages {
    /// Where the run goes on until its work is kept.
    pub(super) stopping: String,
    /// Where the program ends at once.
    pub(super) at_once: String,
}

impl Interrupts {
    /// Listens from now on to SIGINT and, on Unix, to SIGTERM and SIGHUP, but not to those that the program was started to ignore
    /// (`nohup`, jobs in the background). Must be called before other threads are started: they inherit what is blocked.
    pub(super) fn listen(messages: Option<Messages>) -> anyhow::Result<Self> {
        let interrupts = Self { stop: Stop::default(), first: Arc::default(), messages };
        #[cfg(unix)]
        unix::listen(interrupts.clone()).context("signals")?;
        let handled = interrupts.clone();
        ctrlc::set_handler(move || handled.handle(SIGINT)).context("signals")?;
        Ok(interrupts)
    }

    /// Status of a program that ended because of a signal: 128 and its number.
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

/// A terminal that is gone, which SIGHUP tells, is no reason to fail.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn end(signal: u8) -> ! {
    std::process::exit(128 + i32::from(signal))
}

/// SIGTERM and SIGHUP. They are blocked and waited for, because `ctrlc` does not tell one signal from another.
#[cfg(unix)]
mod unix {
    use nix::sys::signal::{SigSet, Signal};

    use super::Interrupts;

    pub(super) fn listen(interrupts: Interrupts) -> anyhow::Result<()> {
        let ignored = ignored();
        let is_ignored = |signal: Signal| ignored >> (signal as u32 - 1) & 1 == 1;
        // `ctrlc` would take what is ignored for a request.
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

    /// Signals that this program was started to ignore, as bits from signal 1 on; none where the system does not say.
    fn ignored() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    }
}
