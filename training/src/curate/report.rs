//! `report.md`: counts, settings, clusters and examples for people.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use super::{CurateConfig, CurateError, Reason, Summary};
use crate::files::write_bytes;

/// Rows of a list of examples.
const EXAMPLES: usize = 10;

/// Writes what was done and what came of it, for people.
pub(super) fn write(path: &Path, config: &CurateConfig, summary: &Summary) -> Result<(), CurateError> {
    let text = text(config, summary);
    write_bytes(path, text.as_bytes()).map_err(CurateError::file(path))
}

fn text(config: &CurateConfig, summary: &Summary) -> String {
    let mut text = String::from("# Curated images\n\n");
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    line(format!("{} of {} images are kept.\n", summary.kept(), summary.reasons.len()));
    line("| what became of them | images | share |\n|---|--:|--:|".into());
    for (what, count) in counts(summary) {
        line(format!("| {what} | {count} | {:.1} % |", 100.0 * count as f64 / summary.reasons.len() as f64));
    }
    if let Some(advice) = &summary.advice {
        line(format!("\nNote: {advice}."));
    }
    line(String::from("\n## How"));
    line(settings(config, summary));
    line(clusters(summary));
    for (title, example) in [
        ("Images that cannot be read", unreadable as fn(&Reason) -> Option<String>),
        ("Images that evaluation sets have", leak),
    ] {
        line(examples(title, summary, example));
    }
    line(duplicates(summary));
    text
}

/// Each kind of reason that occurs, and how often.
fn counts(summary: &Summary) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for reason in &summary.reasons {
        let what = match reason {
            Reason::Drawn => "kept: drawn from clusters",
            Reason::Retrieved { .. } => "kept: near the robot's frames",
            Reason::Unreadable { .. } => "left out: cannot be read",
            Reason::Copy { .. } => "left out: same bytes as another file",
            Reason::Frame { .. } => "left out: frame of a video that hardly changed",
            Reason::Leak { .. } => "left out: in an evaluation set",
            Reason::Duplicate { .. } => "left out: shows the same as another image",
            Reason::NotDrawn => "left out: its cluster had given its share",
        };
        *counts.entry(what).or_insert(0) += 1;
    }
    counts
}

fn settings(config: &CurateConfig, summary: &Summary) -> String {
    let same = |sameness: &super::Sameness| {
        format!(
            "cosine ≥ {}, or ≥ {} and hashes that differ in at most {} of 64 bits",
            sameness.cosine, sameness.hashed_cosine, sameness.hash_distance
        )
    };
    let list = |sources: &[String]| if sources.is_empty() { "none".into() } else { sources.join(", ") };
    let mut text = String::from("\n| | |\n|---|---|\n");
    let mut row = |what: &str, value: String| {
        let _ = writeln!(text, "| {what} | {value} |");
    };
    row("images", list(&config.data));
    row("evaluation sets", list(&config.evaluation));
    row("robot's frames", list(&config.seeds));
    row(
        "embeddings",
        format!("class tokens of {}, {:?}, at {2}x{2}", config.model, config.precision, config.side_px),
    );
    row("taken out of them", summary.common.clone());
    row(
        "duplicates",
        format!(
            "{}; among {} neighbours; by way of others from cosine {} on",
            same(&config.duplicates),
            config.neighbours,
            config.chained_cosine
        ),
    );
    row("evaluation", same(&config.leaks));
    row(
        "video",
        if config.frames.is_empty() {
            "none".into()
        } else {
            format!(
                "{}; two frames show the same from cosine {} on",
                list(&config.frames),
                config.thin_cosine
            )
        },
    );
    row(
        "clusters",
        format!(
            "{:?}, {} iterations, {} rounds of resampling",
            summary.levels, config.iterations, config.resampling
        ),
    );
    row("wanted", config.count.map_or("all".into(), |count| count.to_string()));
    row("seed", config.seed.to_string());
    text
}

/// How even clusters were, and what is kept of them.
fn clusters(summary: &Summary) -> String {
    let mut text = String::from(
        "\n## Clusters\n\n| level | clusters | images: smallest, median, largest | kept: smallest, median, largest |\n|---|--:|--:|--:|\n",
    );
    for depth in 0..summary.levels.len() {
        let (mut images, mut kept): (HashMap<u32, usize>, HashMap<u32, usize>) = Default::default();
        for (path, reason) in summary.clusters.iter().zip(&summary.reasons) {
            if let Some(&cluster) = path.get(depth) {
                *images.entry(cluster).or_insert(0) += 1;
                *kept.entry(cluster).or_insert(0) += usize::from(reason.is_kept());
            }
        }
        let spread = |sizes: &HashMap<u32, usize>| {
            let mut sizes: Vec<usize> = sizes.values().copied().collect();
            sizes.sort_unstable();
            let at = |index: usize| sizes.get(index).copied().unwrap_or(0);
            format!("{}, {}, {}", at(0), at(sizes.len() / 2), at(sizes.len().saturating_sub(1)))
        };
        let _ =
            writeln!(text, "| {} | {} | {} | {} |", depth + 1, images.len(), spread(&images), spread(&kept));
    }
    text
}

fn unreadable(reason: &Reason) -> Option<String> {
    match reason {
        Reason::Unreadable { error } => Some(error.clone()),
        _ => None,
    }
}

fn leak(reason: &Reason) -> Option<String> {
    match reason {
        Reason::Leak { of, cosine } => Some(format!("cosine {cosine:.3} to {of}")),
        _ => None,
    }
}

/// The first few images of a kind.
fn examples(title: &str, summary: &Summary, example: fn(&Reason) -> Option<String>) -> String {
    let all: Vec<_> = summary
        .names
        .iter()
        .zip(&summary.reasons)
        .filter_map(|(name, reason)| Some((name, example(reason)?)))
        .collect();
    if all.is_empty() {
        return String::new();
    }
    let mut text = format!("\n## {title}: {}\n\n", all.len());
    for (name, words) in all.iter().take(EXAMPLES) {
        let _ = writeln!(text, "- {name}: {words}");
    }
    if all.len() > EXAMPLES {
        let _ = writeln!(text, "- … (all of them stand in manifest.jsonl)");
    }
    text
}

/// The largest groups of duplicates, and the least similar pairs, which show first whether a threshold is too low.
fn duplicates(summary: &Summary) -> String {
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    let mut pairs = Vec::new();
    for (name, reason) in summary.names.iter().zip(&summary.reasons) {
        if let Reason::Duplicate { of, cosine } = reason {
            *groups.entry(of).or_insert(1) += 1;
            pairs.push((*cosine, name, of));
        }
    }
    if pairs.is_empty() {
        return String::new();
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    pairs.sort_by(|left, right| left.0.total_cmp(&right.0));
    let mut text = String::from("\n## Duplicates: the largest groups\n\n");
    for (name, count) in groups.iter().take(EXAMPLES) {
        let _ = writeln!(text, "- {count} images like {name}");
    }
    text.push_str("\n## Duplicates: the least alike\n\n");
    for (cosine, name, of) in pairs.iter().take(EXAMPLES) {
        let _ = writeln!(text, "- cosine {cosine:.3}: {name} and {of}");
    }
    text
}
