//! The members of a zip archive as `torch.save` writes it: stored, not compressed.
//!
//! Members are byte ranges of the archive; nothing is copied or inflated. `rawzip` parses the format. Checksums are not
//! verified: PyTorch does not verify them either, and weights are checked for NaN later.

use std::collections::BTreeMap;
use std::ops::Range;

use rawzip::{CompressionMethod, ZipArchive, ZipFileHeaderRecord, ZipSliceArchive};

/// Most members; a checkpoint has one per tensor.
const MAX_MEMBERS: u64 = 1 << 17;

/// Byte ranges of the members of `archive` by name.
pub(crate) fn members(archive: &[u8]) -> Result<BTreeMap<String, Range<usize>>, String> {
    let archive = ZipArchive::from_slice(archive).map_err(|error| {
        format!("zip archive: expected a central directory, got none (is the file complete?): {error}")
    })?;
    let expected = archive.entries_hint();
    if expected > MAX_MEMBERS {
        return Err(format!("zip archive: expected at most {MAX_MEMBERS} members, got {expected}"));
    }
    let mut members = BTreeMap::new();
    let mut entries = archive.entries();
    while let Some(entry) = entries.next_entry().map_err(|error| format!("zip archive: {error}"))? {
        let name = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
        let range = data(&archive, &entry).map_err(|problem| format!("zip member {name:?}: {problem}"))?;
        if members.len() as u64 == expected {
            return Err(format!("zip archive: expected {expected} members, got more"));
        }
        if members.insert(name.clone(), range).is_some() {
            return Err(format!("zip member {name:?}: expected one, got two"));
        }
    }
    if members.len() as u64 != expected {
        return Err(format!("zip archive: expected {expected} members, got {}", members.len()));
    }
    Ok(members)
}

/// Byte range of a member's data. The end of the local header, not the central directory, says where it begins.
fn data(archive: &ZipSliceArchive<&[u8]>, entry: &ZipFileHeaderRecord) -> Result<Range<usize>, String> {
    let stored = entry.compression_method() == CompressionMethod::STORE
        && !entry.flags().is_encrypted()
        && entry.compressed_size_hint() == entry.uncompressed_size_hint();
    if !stored {
        return Err(format!(
            "expected it stored as torch.save does, got compression method {} (save the checkpoint again with \
             torch.save)",
            entry.compression_method().as_u16()
        ));
    }
    let (start, end) =
        archive.get_entry(entry.wayfinder()).map_err(|error| error.to_string())?.compressed_data_range();
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) => Ok(start..end),
        _ => Err(format!("expected it within {} bytes, got past the end", archive.get_ref().len())),
    }
}
