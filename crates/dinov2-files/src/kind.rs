//! Kinds of output files, recognised by content. Only the first [`HEAD_BYTES`] are read, and no format is validated.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Kinds of output files. The kind of an existing file follows from its content, never from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A safetensors file with features, which its metadata says.
    Features,
    /// Any other safetensors file: a model or a checkpoint.
    Model,
    /// An ONNX file.
    Onnx,
    /// External weights of an ONNX file: bytes of no other kind listed here.
    Weights,
    /// A numpy array.
    Npy,
    /// A PNG picture of features, marked in a text chunk.
    Picture,
    /// An index of feature files.
    Index,
    /// Text.
    Text,
    /// Any kind: for folders that belong to the program.
    Any,
}

/// Text in the metadata of a features file and in a text chunk of a picture of features.
const FEATURES_MARK: &[u8] = b"dinov2-edge features";
/// Start of the first line of an index.
const INDEX_MARK: &[u8] = b"{\"file\":";
/// Bytes that are read. The marks of our own files lie within them.
const HEAD_BYTES: u64 = 1 << 16;
/// Longest header of a safetensors file: the limit of the format's reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// What the content of an existing file can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Empty,
    Of(Kind),
    Image,
    Recording,
    Unknown,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Features => "a safetensors file of features",
            Self::Model => "a safetensors file of weights",
            Self::Onnx => "an ONNX file",
            Self::Weights => "external weights",
            Self::Npy => "a numpy array",
            Self::Picture => "a picture of features",
            Self::Index => "an index of features",
            Self::Text => "a text file",
            Self::Any => "any file",
        }
    }

    /// Whether files of this kind are synced before they get their name. Those that are written once per frame are not.
    pub(crate) fn is_synced(self) -> bool {
        !matches!(self, Self::Features | Self::Npy | Self::Picture)
    }

    /// `None` if a file of this kind may replace the file at `path`; else the names of the expected and the found kind.
    pub(crate) fn differs_from(self, path: &Path) -> io::Result<Option<(&'static str, &'static str)>> {
        if self == Self::Any {
            return Ok(None);
        }
        let found = sniff(path)?;
        let same = match found {
            Found::Empty => true,
            Found::Of(kind) => kind == self || (self == Self::Text && kind == Self::Index),
            Found::Unknown => self == Self::Weights,
            Found::Image | Found::Recording => false,
        };
        Ok((!same).then(|| (self.name(), found.name())))
    }
}

impl Found {
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "an empty file",
            Self::Of(kind) => kind.name(),
            Self::Image => "an image",
            Self::Recording => "a recording",
            Self::Unknown => "a file of another kind",
        }
    }
}

fn sniff(path: &Path) -> io::Result<Found> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(kind_of(&head, bytes))
}

/// The kind of a file of `bytes` bytes that begins with `head`.
fn kind_of(head: &[u8], bytes: u64) -> Found {
    let marked = |mark: &[u8]| head.windows(mark.len()).any(|window| window == mark);
    let starts = |magic: &[u8]| head.starts_with(magic);
    if head.is_empty() {
        Found::Empty
    } else if is_safetensors(head, bytes) {
        Found::Of(if marked(FEATURES_MARK) { Kind::Features } else { Kind::Model })
    } else if starts(b"\x93NUMPY") {
        Found::Of(Kind::Npy)
    } else if starts(b"\x89PNG\r\n\x1a\n") && marked(FEATURES_MARK) {
        Found::Of(Kind::Picture)
    } else if is_image(head) {
        Found::Image
    } else if starts(b"\x89MCAP0\r\n") {
        Found::Recording
    } else if is_onnx(head) {
        Found::Of(Kind::Onnx)
    } else if starts(INDEX_MARK) {
        Found::Of(Kind::Index)
    } else if is_text(head, bytes) {
        Found::Of(Kind::Text)
    } else {
        Found::Unknown
    }
}

/// The length of the JSON header in 8 bytes, then the header.
fn is_safetensors(head: &[u8], bytes: u64) -> bool {
    let Some((length, rest)) = head.split_first_chunk::<8>() else { return false };
    let length = u64::from_le_bytes(*length);
    (2..=MAX_HEADER_BYTES).contains(&length) && length <= bytes - 8 && rest.starts_with(b"{")
}

/// PNG, JPEG, GIF, BMP, TIFF, WebP, QOI, and HEIF or a video (`ftyp`).
fn is_image(head: &[u8]) -> bool {
    let starts: [&[u8]; 8] =
        [b"\x89PNG", b"\xFF\xD8\xFF", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"qoif"];
    starts.iter().any(|magic| head.starts_with(magic)) || head.get(4..8) == Some(b"ftyp")
}

/// A `ModelProto` as exporters write it: the format's version (field 1), then the producer's name (field 2) or the graph
/// (field 7).
fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [0x08, 1..=0x20, 0x12 | 0x3A, ..])
}

/// UTF-8 whose only control characters are those that end or indent lines.
fn is_text(head: &[u8], bytes: u64) -> bool {
    let text = match str::from_utf8(head) {
        Ok(text) => text,
        // The head may end within a character.
        Err(error) if error.error_len().is_none() && bytes > head.len() as u64 => {
            str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    text.chars().all(|character| !character.is_control() || matches!(character, '\n' | '\r' | '\t' | '\x0c'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(bytes: &[u8]) -> Found {
        kind_of(bytes, bytes.len() as u64)
    }

    #[test]
    fn content_tells_the_kind() {
        let safetensors =
            |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let features = safetensors("{\"__metadata__\":{\"format\":\"dinov2-edge features 1\"}}");
        for (bytes, expected) in [
            (&features[..], Found::Of(Kind::Features)),
            (&safetensors("{\"a\":1}"), Found::Of(Kind::Model)),
            (b"\x93NUMPY\x01\0", Found::Of(Kind::Npy)),
            (b"\x89PNG\r\n\x1a\n....iTXtdinov2-edge features", Found::Of(Kind::Picture)),
            (b"\x89PNG\r\n\x1a\n....IDAT", Found::Image),
            (b"\xFF\xD8\xFF\xE0", Found::Image),
            (b"\0\0\0\x18ftypheic", Found::Image),
            (b"\x89MCAP0\r\n", Found::Recording),
            (b"\x08\x08\x12\x0bdinov2-edge", Found::Of(Kind::Onnx)),
            (b"{\"file\":\"a.npy\"}\n", Found::Of(Kind::Index)),
            ("a letter \u{e9}\n".as_bytes(), Found::Of(Kind::Text)),
            (b"", Found::Empty),
            (b"\0\x01\x02\x03", Found::Unknown),
            // The header's length exceeds the file.
            (b"\xff\0\0\0\0\0\0\0{", Found::Unknown),
        ] {
            assert_eq!(kind(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn text_may_be_cut_within_a_character() {
        assert!(is_text(&"é".as_bytes()[..1], 2));
        assert!(!is_text(&"é".as_bytes()[..1], 1));
        assert!(!is_text(b"\x1b[0m", 4));
    }
}
