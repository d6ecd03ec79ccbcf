//! HEIC and AVIF photographs, decoded by libheif's own program, `heif-dec` or (before libheif 1.18) `heif-convert`.
//!
//! It puts tiles together and turns the picture, which ffmpeg does not. Files may hold several pictures, of which the
//! program would write all without saying which is which: so it gets a copy in which all but the primary one are marked
//! as hidden. The EXIF orientation is not applied: in HEIF the properties `irot` and `imir` say how a picture is turned, and
//! EXIF only repeats it (ISO/IEC 23008-12, A.3).
//!
//! Image sequences (`avis`, `msf1`) are videos for ffmpeg.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use image::ImageFormat;

use super::still::decode_upright;
use crate::limits::{MAX_HEADER_LINE_BYTES, MAX_HEIF_SECONDS, MAX_IMAGE_FILE_BYTES, check_frame_size};
use crate::{FormatError, Frame, SourceError};

const PROGRAMS: [&str; 2] = ["heif-dec", "heif-convert"];
const PHOTOGRAPHS: [&[u8; 4]; 7] = [b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"avif"];
const SEQUENCES: [&[u8; 4]; 6] = [b"avis", b"msf1", b"hevc", b"hevx", b"hevm", b"hevs"];
/// Brands of videos, which may be compatible with `mif1` for the sake of their cover.
const VIDEOS: [&[u8; 3]; 4] = [b"iso", b"mp4", b"qt ", b"M4V"];
/// Deepest nesting of boxes that is read: `meta/iprp/ipco/ispe`.
const MAX_DEPTH: usize = 4;
/// Interval at which a running program is polled.
const POLL: Duration = Duration::from_millis(4);

/// True for a file that is one photograph, by its first bytes: `ftyp` with its major and compatible brands.
pub(crate) fn is_photograph(head: &[u8]) -> bool {
    let Some((size, b"ftyp")) = head.first_chunk().zip(head.get(4..8)) else {
        return false;
    };
    let brands = head.get(8..(u32::from_be_bytes(*size) as usize).min(head.len())).unwrap_or_default();
    let brands = brands.as_chunks::<4>().0;
    // The second word is a version.
    let (Some(major), compatible) = (brands.first(), brands.get(2..).unwrap_or_default()) else {
        return false;
    };
    let is_video = |brand: &[u8; 4]| VIDEOS.iter().any(|video| brand.starts_with(*video));
    match major {
        major if PHOTOGRAPHS.contains(&major) => true,
        major if SEQUENCES.contains(&major) || is_video(major) => false,
        _ => {
            compatible.iter().any(|brand| PHOTOGRAPHS.contains(&brand))
                && !compatible.iter().any(|brand| SEQUENCES.contains(&brand) || is_video(brand))
        }
    }
}

/// Decodes the primary picture of `encoded`, read from `path`, into `frame`: pixels and size.
pub(crate) fn decode(encoded: &[u8], path: &Path, frame: &mut Frame) -> Result<(), SourceError> {
    let mut copy = encoded.to_vec();
    show_primary_only(&mut copy).map_err(SourceError::format(path.display()))?;
    let folder = tempfile::tempdir().map_err(SourceError::read("temporary folder"))?;
    fs::write(folder.path().join("in.heic"), copy).map_err(SourceError::read(folder.path().display()))?;
    let (program, status) = run(folder.path(), path)?;
    let mut png = Vec::new();
    let picture = File::open(folder.path().join("out.png"));
    match picture.and_then(|file| file.take(MAX_IMAGE_FILE_BYTES).read_to_end(&mut png)) {
        Ok(1..) if status.is_some_and(|status| status.success()) => {}
        _ => {
            let message = failure(folder.path(), status);
            return Err(SourceError::Heif { program, message, path: path.display().to_string() });
        }
    }
    decode_upright(ImageFormat::Png, &png, frame).map_err(SourceError::format(path.display()))
}

/// Runs the first installed program from `in.heic` to `out.png`. The status is `None` if it exceeded the time limit.
fn run(folder: &Path, path: &Path) -> Result<(&'static str, Option<ExitStatus>), SourceError> {
    for program in PROGRAMS {
        let words = File::create(folder.join("words")).map_err(SourceError::read(folder.display()))?;
        let child = Command::new(program)
            .args(["in.heic", "out.png"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(words)
            .spawn();
        let status = match child {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            child => child.and_then(|mut child| wait(&mut child)),
        };
        let failed = |source: io::Error| {
            let path = path.display().to_string();
            SourceError::Program { program: program.into(), source, path }
        };
        return Ok((program, status.map_err(failed)?));
    }
    Err(SourceError::HeifMissing { path: path.display().to_string() })
}

fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + Duration::from_secs(MAX_HEIF_SECONDS);
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// The last line of the program's output, or its exit status.
fn failure(folder: &Path, status: Option<ExitStatus>) -> String {
    let Some(status) = status else {
        return format!("expected an image within {MAX_HEIF_SECONDS} s, got none");
    };
    let mut words = Vec::new();
    if let Ok(file) = File::open(folder.join("words")) {
        let _ = file.take(MAX_HEADER_LINE_BYTES as u64).read_to_end(&mut words);
    }
    let words = String::from_utf8_lossy(&words);
    let line = words.lines().map(str::trim).find(|line| !line.is_empty());
    line.map_or_else(|| format!("expected an image, got none ({status})"), str::to_string)
}

/// Where a box is: its type and the range of what it holds.
struct Part {
    kind: [u8; 4],
    from: usize,
    to: usize,
}

/// The boxes between `from` and `to`.
fn parts(file: &[u8], mut from: usize, to: usize) -> Result<Vec<Part>, FormatError> {
    let mut parts = Vec::new();
    while from < to {
        let number = |at: usize| file[..to].get(at..at + 4)?.first_chunk().copied();
        let (size, kind) = number(from).zip(number(from + 4)).ok_or_else(|| broken("a box header"))?;
        let (start, size) = match u32::from_be_bytes(size) as usize {
            0 => (8, to - from),
            1 => {
                let long = file[..to].get(from + 8..from + 16).and_then(<[u8]>::first_chunk);
                let long = long.copied().map(u64::from_be_bytes).ok_or_else(|| broken("a box size"))?;
                (16, usize::try_from(long).unwrap_or(usize::MAX))
            }
            size => (8, size),
        };
        if size < start || size > to - from {
            return Err(broken("a whole file"));
        }
        parts.push(Part { kind, from: from + start, to: from + size });
        from += size;
    }
    Ok(parts)
}

fn broken(expected: &str) -> FormatError {
    FormatError::Field { what: "HEIF file", expected: expected.into(), got: "a broken or cut one".into() }
}

/// Marks every item as hidden but the primary one, and checks the sizes of all.
fn show_primary_only(file: &mut [u8]) -> Result<(), FormatError> {
    let top = parts(file, 0, file.len())?;
    let meta = top.iter().find(|part| part.kind == *b"meta").ok_or_else(|| broken("a picture"))?;
    let (mut primary, mut items) = (None, Vec::new());
    for part in parts(file, meta.from + 4, meta.to)? {
        match &part.kind {
            b"pitm" => primary = read_id(file, &part, 4),
            b"iinf" => {
                let counted = if file.get(part.from) == Some(&0) { 6 } else { 8 };
                items = parts(file, part.from + counted, part.to)?;
            }
            b"iprp" => check_sizes(file, &part, MAX_DEPTH)?,
            _ => {}
        }
    }
    let primary = primary.ok_or_else(|| broken("a primary picture"))?;
    for item in items {
        // An item's version, flags, and number, which has 16 bits up to version 2.
        if let Some(id) = read_id(file, &item, 4) {
            file[item.from + 3] = file[item.from + 3] & !1 | u8::from(id != primary);
        }
    }
    Ok(())
}

/// The number of an item at `offset` of a box: 16 bits, or 32 in later versions of the box.
fn read_id(file: &[u8], part: &Part, offset: usize) -> Option<u32> {
    let body = file.get(part.from..part.to)?;
    let long_from = if part.kind == *b"pitm" { 1 } else { 3 };
    match body.first()? {
        version if *version >= long_from => Some(u32::from_be_bytes(*body.get(offset..)?.first_chunk()?)),
        _ => Some(u16::from_be_bytes(*body.get(offset..)?.first_chunk()?).into()),
    }
}

/// Checks every `ispe`, the size of a picture or tile.
fn check_sizes(file: &[u8], part: &Part, depth: usize) -> Result<(), FormatError> {
    for inner in parts(file, part.from, part.to)? {
        match &inner.kind {
            b"ipco" if depth > 0 => check_sizes(file, &inner, depth - 1)?,
            b"ispe" => {
                let side = |at: usize| file[inner.from..inner.to].get(at..)?.first_chunk().copied();
                let sides = side(4).zip(side(8)).ok_or_else(|| broken("the size of a picture"))?;
                let sides = (u32::from_be_bytes(sides.0) as usize, u32::from_be_bytes(sides.1) as usize);
                check_frame_size(sides.0, sides.1)?;
            }
            _ => {}
        }
    }
    Ok(())
}
