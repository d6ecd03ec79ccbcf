//! Progress bars on stderr; hidden if stderr is not a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for `total` frames or tensors, or a counter where the total is unknown.
pub(crate) fn counter(total: Option<u64>, unit: &str) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    let template = match total {
        Some(_) => format!("{{bar:30}} {{pos}}/{{len}} {unit} {{per_sec}} ETA {{eta}} {{msg}}"),
        None => format!("{{spinner}} {{pos}} {unit} {{per_sec}} {{msg}}"),
    };
    styled(bar, &template)
}

/// A bar for bytes.
#[cfg(feature = "hub")]
pub(crate) fn bytes(total: u64) -> ProgressBar {
    styled(ProgressBar::new(total), "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {msg}")
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // Templates are constants, so this does not happen; the default style is the fallback.
        Err(_) => bar,
    }
}
