//! The natural order of file names: `frame2` before `frame10`.

use std::cmp::Ordering;
use std::path::PathBuf;

/// Sorts paths in the natural order of their names.
pub(super) fn sort_naturally(paths: &mut [PathBuf]) {
    paths.sort_by_cached_key(|path| NaturalKey(path.to_string_lossy().into_owned()));
}

#[derive(PartialEq, Eq)]
struct NaturalKey(String);

impl PartialOrd for NaturalKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NaturalKey {
    fn cmp(&self, other: &Self) -> Ordering {
        natural_order(&self.0, &other.0)
    }
}

/// Orders `frame2` before `frame10`: runs of digits compare as numbers, everything else byte by byte.
///
/// ```
/// let mut names = ["frame10", "frame2"];
/// names.sort_by(|left, right| dinov2_io::natural_order(left, right));
/// assert_eq!(names, ["frame2", "frame10"]);
/// ```
pub fn natural_order(left: &str, right: &str) -> Ordering {
    let (mut left_rest, mut right_rest) = (left.as_bytes(), right.as_bytes());
    while let ([left_byte, ..], [right_byte, ..]) = (left_rest, right_rest) {
        let order = if left_byte.is_ascii_digit() && right_byte.is_ascii_digit() {
            let (left_number, right_number) = (take_number(&mut left_rest), take_number(&mut right_rest));
            left_number.len().cmp(&right_number.len()).then_with(|| left_number.cmp(right_number))
        } else {
            (left_rest, right_rest) = (&left_rest[1..], &right_rest[1..]);
            left_byte.cmp(right_byte)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    left_rest.len().cmp(&right_rest.len()).then_with(|| left.cmp(right))
}

/// The digits at the front, without leading zeros.
fn take_number<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    &digits[digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len())..]
}
