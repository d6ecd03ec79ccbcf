//! `manifest.jsonl`: a line per image, with the decision and its reason. `data::manifest` reads it again.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::CurateError;
use super::scan::ImageFacts;
use crate::data::{Dataset, ManifestEntry, Member};
use crate::files::write_whole;

/// The decision about an image, and its reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Kept: drawn from its cluster.
    Drawn,
    /// Kept: among the nearest to one of the robot's own frames.
    Retrieved {
        /// The frame.
        by: String,
        /// Cosine to it.
        cosine: f32,
    },
    /// It cannot be read.
    Unreadable {
        /// The error.
        error: String,
    },
    /// Another file has the same bytes.
    Copy {
        /// That file.
        of: String,
    },
    /// A frame of a video that hardly differs from one before.
    Frame {
        /// The kept frame that represents it.
        of: String,
        /// Cosine to it.
        cosine: f32,
    },
    /// It or a duplicate of it shows the same as an image of an evaluation set.
    Leak {
        /// That image.
        of: String,
        /// Cosine of the nearest of the duplicates to it.
        cosine: f32,
    },
    /// Another image that shows the same was chosen.
    Duplicate {
        /// That image.
        of: String,
        /// Cosine to it.
        cosine: f32,
    },
    /// Its cluster's share was full.
    NotDrawn,
}

impl Reason {
    /// Whether the image is to be trained on.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Drawn | Self::Retrieved { .. })
    }
}

/// A line of the manifest.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    entry: ManifestEntry,
    sha256: &'a str,
    width_px: usize,
    height_px: usize,
    /// Perceptual hash in hexadecimal digits.
    phash: String,
    /// The coarsest cluster first; empty where the image was left out before clusters were made.
    cluster: &'a [u32],
    reason: &'a Reason,
}

/// Writes a line per image. Paths become absolute, so that the manifest can be opened from anywhere.
pub(super) fn write(
    path: &Path,
    dataset: &Dataset,
    facts: &[ImageFacts],
    clusters: &[Vec<u32>],
    reasons: &[Reason],
) -> Result<(), CurateError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    write_whole(path, |out| {
        for (sample, fact) in facts.iter().enumerate() {
            let member = dataset.member(sample).map(Member::absolute);
            let name = match &member {
                Some(_) => dataset.name(sample).to_string(),
                None => absolute(Path::new(dataset.name(sample))).to_string_lossy().into_owned(),
            };
            let (bytes, kept) = (Some(dataset.encoded_bytes(sample)), reasons[sample].is_kept());
            let line = Line {
                entry: ManifestEntry { name, member, bytes, kept },
                sha256: &fact.sha256,
                width_px: fact.width_px,
                height_px: fact.height_px,
                phash: format!("{:016x}", fact.hash),
                cluster: &clusters[sample],
                reason: &reasons[sample],
            };
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
    .map_err(CurateError::file(path))
}
