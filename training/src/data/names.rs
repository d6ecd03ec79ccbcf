//! What the names of sources say: images by their extension, addresses of object stores, braces that stand for many shards. Nothing is
//! looked up on a disk.

use std::path::Path;

use super::DataError;

/// Extensions by which images are found in folders, globs and archives; what is named itself need not have one.
const IMAGE_EXTENSIONS: [&str; 15] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "gif", "tif", "tiff", "pnm", "ppm", "pgm", "pbm",
    "qoi",
];
/// Most shards that braces, or the address of a folder, may name.
pub(super) const MAX_SHARDS: u64 = 1 << 20;

/// Whether a file name has the extension of an image.
pub(super) fn is_image_name(name: &str) -> bool {
    let extension = name.rsplit('/').next().unwrap_or(name).rsplit_once('.').map(|(_, extension)| extension);
    extension
        .is_some_and(|extension| IMAGE_EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

pub(super) fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
}

/// Whether a name is an address in an object store, not a path.
pub(super) fn is_address(name: &str) -> bool {
    name.contains("://")
}

pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// Whether a file found in a folder or by a glob is an image or a shard.
pub(super) fn is_wanted(path: &Path) -> bool {
    has_extension(path, "tar") || is_image_name(&path.to_string_lossy())
}

/// Expands braces: `s-{000..012}.tar` is 13 names. The digits of the first number are the width of all.
pub(super) fn expand_braces(name: &str) -> Result<Vec<String>, DataError> {
    let Some((before, (range, after))) =
        name.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return Ok(vec![name.to_string()]);
    };
    let wrong = || DataError::Input {
        expected: format!(
            "braces of two numbers, such as {{000..012}}, that name at most {MAX_SHARDS} files"
        ),
        got: name.to_string(),
    };
    let (low, high) = range.split_once("..").ok_or_else(wrong)?;
    let number = |word: &str| -> Option<u64> {
        let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        word.parse().ok().filter(|_| digits)
    };
    let (first, last) = number(low).zip(number(high)).ok_or_else(wrong)?;
    let tails = expand_braces(after)?;
    let count = last.checked_sub(first).and_then(|span| span.checked_add(1)?.checked_mul(tails.len() as u64));
    if count.is_none_or(|count| count > MAX_SHARDS) {
        return Err(wrong());
    }
    let width = if low.starts_with('0') { low.len() } else { 0 };
    let heads = (first..=last).map(|number| format!("{before}{number:0width$}"));
    Ok(heads.flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}"))).collect())
}
