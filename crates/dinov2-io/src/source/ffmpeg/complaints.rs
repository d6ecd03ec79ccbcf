//! Parses ffmpeg's standard error and finds the line with the reason of a failure.
//!
//! ffmpeg prints the fault first and then one consequence per layer, so the reason is the first line that is not a known
//! consequence.

use std::io::{BufRead, BufReader, Read};

use crate::limits::MAX_HEADER_LINE_BYTES;

/// Lines that are consequences of an earlier one.
const CONSEQUENCES: [&str; 16] = [
    "Conversion failed",
    "Could not open file",
    "Could not write header",
    "Error initializing",
    "Error opening",
    "Error parsing options",
    "Error processing packet",
    "Error splitting the argument list",
    "Error submitting packet",
    "Error while decoding stream",
    "Error while filtering",
    "Failed to read frame",
    "Invalid data found when processing input",
    "Nothing was written into output file",
    "Task finished with error",
    "Terminating thread",
];

/// Warnings that mean that data is missing; all others are about how a file was made.
const SERIOUS_WARNING: &str = "orrupt";

/// Lines of level error without loss of data: metadata of webcams' JPEGs, and a repeated request to drop a frame.
const HARMLESS: [&str; 2] = ["unable to decode APP fields", "mmco: unref short failure"];

/// Summary of the output.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    reason: Option<String>,
    consequence: Option<String>,
    /// An option is not known to this version.
    pub(super) unknown_option: bool,
    /// The file has no video stream.
    pub(super) no_video: bool,
}

impl Complaints {
    /// Reads to the end, so that the child never blocks on a full pipe.
    pub(super) fn read(stderr: impl Read) -> Self {
        let mut complaints = Self::default();
        let mut line = Vec::new();
        let mut stderr = BufReader::new(stderr);
        while let Ok(1..) = stderr.by_ref().take(MAX_HEADER_LINE_BYTES as u64).read_until(b'\n', &mut line) {
            complaints.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
        complaints
    }

    /// The reason of the failure, or the first problem; `None` without one.
    pub(super) fn reason(&self) -> Option<String> {
        self.reason.clone().or_else(|| self.consequence.clone())
    }

    fn add(&mut self, line: &str) {
        self.unknown_option |= line.contains("Unrecognized option");
        self.no_video |= line.contains("matches no streams");
        let Line { speaker, level, words } = Line::parse(line);
        let is_harmless = HARMLESS.iter().any(|harmless| words.contains(harmless))
            || (level == Some("warning") && !words.contains(SERIOUS_WARNING));
        if words.is_empty() || is_harmless {
            return;
        }
        let is_consequence = CONSEQUENCES.iter().any(|start| words.contains(start));
        let slot = if is_consequence { &mut self.consequence } else { &mut self.reason };
        slot.get_or_insert_with(|| match speaker {
            Some(speaker) if !is_consequence => format!("{speaker}: {words}"),
            // The path, which comes last in our messages, is before the colon.
            _ if is_consequence || words.starts_with("file:") => {
                words.rsplit(": ").next().unwrap_or(words).to_string()
            }
            _ => words.to_string(),
        });
    }
}

/// `[mov,mp4,m4a @ 0x55d0] [error] words`: the speaker is `mov`. Either bracket may be missing.
#[derive(Debug, Default)]
struct Line<'a> {
    speaker: Option<&'a str>,
    level: Option<&'a str>,
    words: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let mut parsed = Self { words: line.trim(), ..Self::default() };
        while let Some((tag, rest)) = parsed.words.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            match tag.split_once(" @ 0x") {
                Some((speaker, _address)) => parsed.speaker = speaker.split(',').next(),
                None if ["panic", "fatal", "error", "warning"].contains(&tag) => parsed.level = Some(tag),
                None => break,
            }
            parsed.words = rest.trim_start();
        }
        parsed
    }
}
