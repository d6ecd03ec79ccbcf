//! Tar archives: where the images of a WebDataset shard lie. Headers are parsed by the `tar` crate; the walk from header to
//! header is ours, because every size is checked before it is used.

use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom};

use tar::{EntryType, Header};

use super::DataError;
use super::names::is_image_name;

const BLOCK_BYTES: u64 = 512;
/// Longest name in a GNU long-name entry; Linux knows no path above 4,096.
const MAX_LONG_NAME_BYTES: u64 = 1 << 16;
/// Largest pax header of an entry.
const MAX_PAX_BYTES: u64 = 1 << 20;
/// Most members of one shard.
const MAX_MEMBERS: usize = 1 << 24;

/// An image within an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located {
    /// Its path in the archive.
    pub(super) name: String,
    /// Where its bytes begin.
    pub(super) offset: u64,
    /// Number of processes.
    pub(super) bytes: u64,
}

/// The images of an archive in their order. In WebDataset's terms a member is `KEY.EXTENSION`, cut at the first dot of its file
/// name; where `KEY.jpg` is an image, another picture of that key (`KEY.mask.png`) belongs to it and is no sample of its own.
///
/// # Errors
/// An archive that cannot be read, is cut short or is none.
pub(super) fn images(archive: &mut (impl Read + Seek), path: &str) -> Result<Vec<Located>, DataError> {
    let mut located = walk(archive, path)?;
    located.retain(|member| is_image_name(&member.name));
    let owners: HashSet<String> = located
        .iter()
        .filter(|member| split_key(&member.name).1.bytes().filter(|byte| *byte == b'.').count() == 1)
        .map(|member| split_key(&member.name).0.to_string())
        .collect();
    located.retain(|member| {
        let (key, extension) = split_key(&member.name);
        extension[1..].bytes().all(|byte| byte != b'.') || !owners.contains(key)
    });
    Ok(located)
}

/// Up to the first dot of the file name, and from there on. A name without an extension is no image's.
fn split_key(name: &str) -> (&str, &str) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    // A dot in front makes a hidden file, not an extension.
    let dot = name[file..].char_indices().skip(1).find(|(_, c)| *c == '.').map(|(at, _)| file + at);
    name.split_at(dot.unwrap_or(name.len()))
}

/// Name and size from the entries before a member.
#[derive(Default)]
struct Announced {
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
}

/// Every plain file of the archive.
fn walk(archive: &mut (impl Read + Seek), path: &str) -> Result<Vec<Located>, DataError> {
    let end = archive.seek(SeekFrom::End(0)).map_err(DataError::read(path))?;
    let mut members = Vec::new();
    let mut announced = Announced::default();
    let mut at = 0;
    while let Some(header) = read_header(archive, at, end, path)? {
        let own_bytes = header.entry_size().map_err(|_| wrong(path, "a size", "another field".into()))?;
        let kind = header.entry_type();
        let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
        let bytes = if is_file { announced.bytes.unwrap_or(own_bytes) } else { own_bytes };
        let offset = at + BLOCK_BYTES;
        let after = bytes.checked_next_multiple_of(BLOCK_BYTES).and_then(|padded| offset.checked_add(padded));
        // The padding of the last member may be missing.
        let cut = offset.checked_add(bytes).is_none_or(|last| last > end);
        let (Some(next), false) = (after, cut) else {
            return Err(wrong(
                path,
                "an entry within the archive",
                format!("{bytes} bytes at {offset} of {end}"),
            ));
        };
        match kind {
            EntryType::GNULongName => announced.name = Some(long_name(archive, bytes, path)?),
            EntryType::XHeader => read_pax(archive, bytes, path, &mut announced)?,
            EntryType::GNUSparse => return Err(wrong(path, "plain files", "a sparse one".into())),
            EntryType::GNULongLink | EntryType::XGlobalHeader => {}
            _ => {
                let said = std::mem::take(&mut announced);
                if is_file {
                    let name = said.name.unwrap_or_else(|| header.path_bytes().into_owned());
                    let name = String::from_utf8_lossy(&name).into_owned();
                    members.push(Located { name, offset, bytes });
                }
            }
        }
        if members.len() > MAX_MEMBERS {
            return Err(wrong(path, format!("at most {MAX_MEMBERS} members"), "more".into()));
        }
        at = next;
    }
    Ok(members)
}

fn wrong(path: &str, expected: impl ToString, got: String) -> DataError {
    DataError::Format { what: "tar archive", expected: expected.to_string(), got, path: path.to_string() }
}

/// The header at `at`; none at the end mark or the end of the file.
fn read_header(
    archive: &mut (impl Read + Seek),
    at: u64,
    end: u64,
    path: &str,
) -> Result<Option<Header>, DataError> {
    if at >= end {
        return Ok(None);
    }
    archive.seek(SeekFrom::Start(at)).map_err(DataError::read(path))?;
    let mut header = Header::new_old();
    let block = header.as_mut_bytes();
    archive.read_exact(block).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => wrong(path, "a header of 512 bytes", format!("{}", end - at)),
        _ => DataError::read(path)(error),
    })?;
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    // Bytes 148..156 hold the sum and count as spaces.
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(index, byte)| if (148..156).contains(&index) { 32 } else { u32::from(*byte) })
        .sum();
    let stated = header.cksum().ok();
    if stated == Some(sum) {
        return Ok(Some(header));
    }
    let stated = stated.map_or("no number".into(), |stated| stated.to_string());
    Err(wrong(path, format!("a header with the check sum {sum} at byte {at}"), stated))
}

fn read_body(archive: &mut impl Read, bytes: u64, most: u64, path: &str) -> Result<Vec<u8>, DataError> {
    if bytes > most {
        return Err(wrong(path, format!("a name or pax header of at most {most} bytes"), bytes.to_string()));
    }
    let mut body = vec![0; bytes as usize];
    archive.read_exact(&mut body).map_err(DataError::read(path))?;
    Ok(body)
}

/// GNU tar ends the name with a zero.
fn long_name(archive: &mut impl Read, bytes: u64, path: &str) -> Result<Vec<u8>, DataError> {
    let mut name = read_body(archive, bytes, MAX_LONG_NAME_BYTES, path)?;
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    Ok(name)
}

/// Records of `LENGTH KEY=VALUE\n`, the length counting all of it (POSIX.1-2001, pax).
fn read_pax(
    archive: &mut impl Read,
    bytes: u64,
    path: &str,
    announced: &mut Announced,
) -> Result<(), DataError> {
    let body = read_body(archive, bytes, MAX_PAX_BYTES, path)?;
    let mut rest = body.as_slice();
    while !rest.is_empty() {
        let (key, value, after) = pax_record(rest).ok_or_else(|| {
            wrong(path, "pax records", format!("{:?}", String::from_utf8_lossy(&rest[..rest.len().min(40)])))
        })?;
        match key {
            b"path" => announced.name = Some(value.to_vec()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                announced.bytes = Some(size.ok_or_else(|| wrong(path, "a pax size", "another text".into()))?);
            }
            _ => {}
        }
        rest = after;
    }
    Ok(())
}

/// Key, value, and what follows.
fn pax_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &records[length..]))
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
