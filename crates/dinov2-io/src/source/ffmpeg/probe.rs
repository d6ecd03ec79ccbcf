//! Facts about a video from `ffprobe`, without decoding it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use super::file_url;

/// Facts about the first video stream. Cover pictures do not count as streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Frames that it claims to have.
    pub(super) frames: Option<usize>,
    /// Video streams in the file; 0 where unknown.
    pub(super) streams: usize,
}

/// Runs `program`. If it is missing or fails, the facts are unknown.
pub(super) fn probe(program: &Path, path: &Path) -> Facts {
    let output = Command::new(program)
        .args(["-v", "error", "-select_streams", "V", "-of", "compact=print_section=0"])
        .args(["-show_entries", "stream=index,r_frame_rate,nb_frames,duration"])
        .arg(file_url(path))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.map(|output| parse(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
}

/// A line of `key=value|…` per stream; transport streams have each again under its program. `N/A` and anything else
/// unreadable counts as unknown.
fn parse(text: &str) -> Facts {
    let value = |line: &str, key: &str| {
        line.trim().split('|').find_map(|pair| Some(pair.strip_prefix(key)?.strip_prefix('=')?.to_string()))
    };
    let indices: BTreeSet<String> = text.lines().filter_map(|line| value(line, "index")).collect();
    let Some(first) = text.lines().find(|line| value(line, "index").is_some()) else {
        return Facts::default();
    };
    let frames = value(first, "nb_frames").and_then(|frames| frames.parse().ok());
    let by_duration = || {
        let rate = value(first, "r_frame_rate")?;
        let (over, under) = rate.split_once('/')?;
        let (over, under): (f64, f64) = (over.parse().ok()?, under.parse().ok()?);
        let seconds: f64 = value(first, "duration")?.parse().ok()?;
        let frames = (seconds * over / under).round();
        (frames.is_finite() && frames > 0.0).then_some(frames as usize)
    };
    Facts { frames: frames.or_else(by_duration), streams: indices.len() }
}
