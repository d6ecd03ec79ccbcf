//! Paths as text.

use std::ffi::OsStr;
use std::path::Path;

/// A path for messages, on one line: control characters are escaped (`\n`), bytes that are not UTF-8 become U+FFFD.
///
/// ```
/// assert_eq!(dinov2_files::shown("a\nb.png"), r"a\nb.png");
/// ```
pub fn shown(path: impl AsRef<OsStr>) -> String {
    let mut shown = String::new();
    for character in path.as_ref().to_string_lossy().chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The bytes of a path in hexadecimal digits, or `None` if the path is UTF-8. For formats that can hold only text.
pub fn hex_unless_utf8(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_encoded_bytes();
    path.to_str().is_none().then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_on_its_line() {
        assert_eq!(shown("a\nb\u{1b}[31m é"), "a\\nb\\u{1b}[31m é");
    }
}
