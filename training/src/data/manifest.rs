//! Manifests: a JSON object per line, one per image, as `training curate` writes them. Only `name` is required.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DataError;
use super::listing::{Entry, Listing, Place};
use super::names::is_address;

/// Longest line of a manifest.
const MAX_LINE_BYTES: u64 = 1 << 16;

/// A line of a manifest. Other keys are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ManifestEntry {
    /// Path of the image, or how it is called in a shard. Relative to the manifest's folder.
    pub(crate) name: String,
    /// Its place in a shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) member: Option<Member>,
    /// Size of the encoded image; a member must have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// Whether it is to be trained on.
    #[serde(default = "yes")]
    pub(crate) kept: bool,
}

/// A part of a tar archive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Address of the archive, or its path, relative to the manifest's folder.
    pub(crate) shard: PathBuf,
    /// Where its bytes begin.
    pub(crate) offset: u64,
}

impl Member {
    /// The same with an absolute path.
    pub(crate) fn absolute(self) -> Self {
        if self.has_address() {
            return self;
        }
        Self { shard: std::path::absolute(&self.shard).unwrap_or(self.shard), ..self }
    }

    fn has_address(&self) -> bool {
        self.shard.to_str().is_some_and(is_address)
    }
}

fn yes() -> bool {
    true
}

/// Adds the kept images of a manifest.
pub(super) fn read(path: &Path, listing: &mut Listing) -> Result<(), DataError> {
    let label = path.display().to_string();
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut reader = BufReader::new(File::open(path).map_err(DataError::read(&label))?);
    let (mut line, mut number, mut shards) = (Vec::new(), 0, HashMap::new());
    loop {
        line.clear();
        number += 1;
        reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(DataError::read(&label))?;
        if line.is_empty() {
            return listing.check_count();
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let wrong = |got: String| DataError::Format {
            what: "manifest",
            expected: format!(
                "a JSON object with a name, of at most {MAX_LINE_BYTES} bytes, in line {number}"
            ),
            got,
            path: label.clone(),
        };
        let entry: ManifestEntry = serde_json::from_slice(&line).map_err(|error| wrong(error.to_string()))?;
        if !entry.kept {
            continue;
        }
        let Some(member) = entry.member else {
            listing.entries.push(file_entry(&folder.join(&entry.name), entry.bytes)?);
            continue;
        };
        let bytes = entry.bytes.ok_or_else(|| wrong("a member without its bytes".into()))?;
        let has_address = member.has_address();
        let shard_path = if has_address { member.shard } else { folder.join(&member.shard) };
        let shard = match shards.entry(shard_path) {
            MapEntry::Occupied(known) => *known.get(),
            MapEntry::Vacant(new) => {
                let shard = listing.shard(new.key())?;
                *new.insert(listing.add_shard(shard))
            }
        };
        let place = Place::Member { shard, offset: member.offset };
        listing.entries.push(Entry { name: entry.name.into(), bytes, place });
    }
}

fn file_entry(path: &Path, bytes: Option<u64>) -> Result<Entry, DataError> {
    let bytes = match bytes {
        Some(bytes) => bytes,
        None => fs::metadata(path).map_err(DataError::read(path.display()))?.len(),
    };
    Ok(Entry::of_file(path, bytes))
}
