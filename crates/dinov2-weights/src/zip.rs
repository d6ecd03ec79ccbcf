//! Finds the members of a zip archive as `torch.save` writes it: stored, not compressed, zip64 where needed.
//!
//! Members are slices of the archive; nothing is copied or inflated. Format: APPNOTE.TXT of PKWARE, sections 4.3 and
//! 4.5.3. Checksums are not verified: PyTorch does not either, and weights are checked for NaN later.

use std::collections::BTreeMap;
use std::ops::Range;

const LOCAL_MAGIC: u32 = 0x0403_4b50;
const CENTRAL_MAGIC: u32 = 0x0201_4b50;
const END_MAGIC: u32 = 0x0605_4b50;
const END64_MAGIC: u32 = 0x0606_4b50;
const END64_LOCATOR_MAGIC: u32 = 0x0706_4b50;
/// Most members; a checkpoint has one per tensor.
const MAX_MEMBERS: usize = 1 << 17;
/// The end record with the longest comment.
const MAX_END_BYTES: usize = 22 + u16::MAX as usize;
const ZIP64_EXTRA: u16 = 1;

/// Byte ranges of the members of `archive` by name.
pub(crate) fn members(archive: &[u8]) -> Result<BTreeMap<String, Range<usize>>, String> {
    let (mut at, count) = central_directory(archive)?;
    if count > MAX_MEMBERS {
        return Err(format!("zip archive: expected at most {MAX_MEMBERS} members, got {count}"));
    }
    let mut members = BTreeMap::new();
    for _ in 0..count {
        let (entry, next) = central_entry(archive, at)?;
        at = next;
        let range = entry.data(archive)?;
        if members.insert(entry.name.clone(), range).is_some() {
            return Err(format!("zip member {:?}: expected one, got two", entry.name));
        }
    }
    Ok(members)
}

struct CentralEntry {
    name: String,
    method: u16,
    flags: u16,
    stored: u64,
    size: u64,
    header: u64,
}

impl CentralEntry {
    /// Where the member's bytes are; its local header has the last word on where they begin.
    fn data(&self, archive: &[u8]) -> Result<Range<usize>, String> {
        let name = &self.name;
        if self.method != 0 || self.flags & 1 != 0 || self.stored != self.size {
            return Err(format!(
                "zip member {name:?}: expected it stored as torch.save does, got compression method {} (save the \
                 checkpoint again with torch.save)",
                self.method
            ));
        }
        let cut =
            || format!("zip member {name:?}: expected it within {} bytes, got past the end", archive.len());
        let header = usize::try_from(self.header).map_err(|_| cut())?;
        if u32_at(archive, header).ok_or_else(cut)? != LOCAL_MAGIC {
            return Err(format!("zip member {name:?}: expected a local header, got none"));
        }
        let lengths = (u16_at(archive, header + 26), u16_at(archive, header + 28));
        let (Some(name_len), Some(extra_len)) = lengths else { return Err(cut()) };
        let start = header + 30 + usize::from(name_len) + usize::from(extra_len);
        let end = usize::try_from(self.size).ok().and_then(|size| start.checked_add(size));
        let end = end.filter(|&end| end <= archive.len()).ok_or_else(cut)?;
        Ok(start..end)
    }
}

/// Offset and number of entries of the central directory.
fn central_directory(archive: &[u8]) -> Result<(usize, usize), String> {
    let cut = || "zip archive: expected a central directory, got none (is the file complete?)".to_string();
    let tail = archive.len().saturating_sub(MAX_END_BYTES);
    let last = archive.len().checked_sub(22).ok_or_else(cut)?;
    let end = (tail..=last).rev().find(|&at| u32_at(archive, at) == Some(END_MAGIC)).ok_or_else(cut)?;
    let locator = end.checked_sub(20).filter(|&at| u32_at(archive, at) == Some(END64_LOCATOR_MAGIC));
    let (count, offset) = match locator {
        Some(locator) => {
            let end64 =
                u64_at(archive, locator + 8).and_then(|at| usize::try_from(at).ok()).ok_or_else(cut)?;
            if u32_at(archive, end64) != Some(END64_MAGIC) {
                return Err(cut());
            }
            (u64_at(archive, end64 + 32), u64_at(archive, end64 + 48))
        }
        None => (u16_at(archive, end + 10).map(u64::from), u32_at(archive, end + 16).map(u64::from)),
    };
    let (Some(count), Some(offset)) = (count, offset) else { return Err(cut()) };
    match (usize::try_from(offset), usize::try_from(count)) {
        (Ok(offset), Ok(count)) if offset <= archive.len() => Ok((offset, count)),
        _ => Err(cut()),
    }
}

/// One entry of the central directory and where the next one begins.
fn central_entry(archive: &[u8], at: usize) -> Result<(CentralEntry, usize), String> {
    let cut = || format!("zip archive: expected a central directory entry at byte {at}, got none");
    if u32_at(archive, at) != Some(CENTRAL_MAGIC) {
        return Err(cut());
    }
    let fixed = archive.get(at..at + 46).ok_or_else(cut)?;
    let half = |offset| u16_at(fixed, offset).unwrap_or_default();
    let word = |offset| u64::from(u32_at(fixed, offset).unwrap_or_default());
    let name_end = at + 46 + usize::from(half(28));
    let extra_end = name_end + usize::from(half(30));
    let name = archive.get(at + 46..name_end).ok_or_else(cut)?;
    let extra = archive.get(name_end..extra_end).ok_or_else(cut)?;
    let mut entry = CentralEntry {
        name: String::from_utf8_lossy(name).into_owned(),
        method: half(10),
        flags: half(8),
        stored: word(20),
        size: word(24),
        header: word(42),
    };
    widen(&mut entry, extra).ok_or_else(cut)?;
    Ok((entry, extra_end + usize::from(half(32))))
}

/// Replaces the fields that do not fit 32 bits by those of the zip64 extra field, in the order of the format.
fn widen(entry: &mut CentralEntry, mut extra: &[u8]) -> Option<()> {
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let body = extra.get(4..4 + length)?;
        extra = &extra[4 + length..];
        if id != ZIP64_EXTRA {
            continue;
        }
        let mut at = 0;
        for field in [&mut entry.size, &mut entry.stored, &mut entry.header] {
            if *field == u64::from(u32::MAX) {
                *field = u64_at(body, at)?;
                at += 8;
            }
        }
    }
    Some(())
}

fn bytes_at<const SIZE: usize>(bytes: &[u8], at: usize) -> Option<[u8; SIZE]> {
    bytes.get(at..at.checked_add(SIZE)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}
