//! Bars on stderr, and plain lines where it is no terminal.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for `total` of something. Where nobody would see it, a line tells what has begun.
pub(super) fn bar(what: &str, model: &str, total: usize, unit: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        // One that nobody can read any more is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{what}: {model}, {total} {unit}");
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total as u64).with_message(format!("{what}: {model}"));
    match ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {unit} ETA {{eta}} {{msg}}")) {
        Ok(style) => bar.with_style(style),
        // The template is ours; a bar in the default style beats an abort.
        Err(_) => bar,
    }
}

/// A line for people.
pub(super) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
