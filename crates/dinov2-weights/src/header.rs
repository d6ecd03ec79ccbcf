//! The header of a safetensors file: read with every bound checked, written in one pass.
//!
//! Layout of the format: a little-endian u64 length, that many bytes of JSON (name → dtype, shape, byte range; the
//! key `__metadata__` holds strings), then the tensors without gaps. Parsing touches the header only.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest header: the limit of the reference implementation.
pub(crate) const MAX_HEADER_BYTES: usize = 100_000_000;
/// Most tensors in one file; ViT-g has 570.
pub(crate) const MAX_TENSORS: usize = 65_536;
/// Most dimensions of a tensor in a file of any kind.
const MAX_HEADER_RANK: usize = 32;
const LENGTH_BYTES: usize = 8;
const METADATA_KEY: &str = "__metadata__";

/// One tensor of the header. `dtype` is kept as text, because sources contain types that are not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TensorEntry {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    /// Byte range, counted from the end of the header.
    pub(crate) data_offsets: [usize; 2],
}

/// A checked header: every byte range lies within the file, and together they cover it exactly.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tensors: BTreeMap<String, TensorEntry>,
    /// Where the data begins in the file.
    pub(crate) data_start: usize,
}

/// Whether the bytes begin as a safetensors file does.
pub(crate) fn looks_like_safetensors(bytes: &[u8]) -> bool {
    header_len(bytes).is_ok_and(|_| bytes.get(LENGTH_BYTES) == Some(&b'{'))
}

fn header_len(bytes: &[u8]) -> Result<usize, String> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Err(format!("safetensors header: expected {LENGTH_BYTES} bytes, got {}", bytes.len()));
    };
    let length = u64::from_le_bytes(*length);
    let most = MAX_HEADER_BYTES.min(bytes.len() - LENGTH_BYTES);
    usize::try_from(length)
        .ok()
        .filter(|&length| length <= most)
        .ok_or_else(|| format!("safetensors header: expected at most {most} bytes, got {length}"))
}

impl Header {
    /// Parses and checks the header of a whole file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let length = header_len(bytes)?;
        let data_start = LENGTH_BYTES + length;
        let raw: RawHeader = serde_json::from_slice(&bytes[LENGTH_BYTES..data_start])
            .map_err(|error| format!("safetensors header: {error}"))?;
        let data_len = bytes.len() - data_start;
        let mut ranges: Vec<(&String, [usize; 2])> =
            raw.tensors.iter().map(|(name, entry)| (name, entry.data_offsets)).collect();
        ranges.sort_by_key(|&(_, range)| range);
        let mut covered = 0;
        for (name, [start, end]) in ranges {
            if start != covered || end < start || end > data_len {
                return Err(format!(
                    "tensor {name:?}: expected bytes from {covered}, ending by {data_len}, got {start}..{end}"
                ));
            }
            covered = end;
        }
        if covered != data_len {
            return Err(format!("tensor data: expected {covered} bytes, got {data_len}"));
        }
        Ok(Self { metadata: raw.metadata, tensors: raw.tensors, data_start })
    }

    /// The byte range of a tensor in the file.
    pub(crate) fn range(&self, entry: &TensorEntry) -> std::ops::Range<usize> {
        let [start, end] = entry.data_offsets;
        self.data_start + start..self.data_start + end
    }
}

/// Serialises a header: length, JSON in the order given, spaces up to a multiple of 8.
pub(crate) fn encode(metadata: &BTreeMap<String, String>, tensors: &[(String, TensorEntry)]) -> Vec<u8> {
    let mut json = serde_json::to_vec(&Written { metadata, tensors }).expect("strings and numbers are JSON");
    json.resize(json.len().next_multiple_of(LENGTH_BYTES), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes
}

struct Written<'a> {
    metadata: &'a BTreeMap<String, String>,
    tensors: &'a [(String, TensorEntry)],
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.tensors.len()))?;
        map.serialize_entry(METADATA_KEY, self.metadata)?;
        for (name, entry) in self.tensors {
            map.serialize_entry(name, entry)?;
        }
        map.end()
    }
}

#[derive(Default)]
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorEntry>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawHeaderVisitor)
    }
}

struct RawHeaderVisitor;

impl<'de> Visitor<'de> for RawHeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("tensor {name:?}: expected one, got two")));
            }
            if name == METADATA_KEY {
                header.metadata = map.next_value()?;
                continue;
            }
            if header.tensors.len() == MAX_TENSORS {
                return Err(A::Error::custom(format_args!("expected at most {MAX_TENSORS} tensors")));
            }
            let entry: TensorEntry = map.next_value()?;
            if entry.shape.len() > MAX_HEADER_RANK {
                let rank = entry.shape.len();
                return Err(A::Error::custom(format_args!(
                    "tensor {name:?}: expected at most {MAX_HEADER_RANK} dimensions, got {rank}"
                )));
            }
            header.tensors.insert(name, entry);
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn hostile_headers_are_refused() {
        let entry = |range: &str| format!(r#"{{"dtype":"F32","shape":[1],"data_offsets":[{range}]}}"#);
        let one = |range: &str| format!(r#"{{"a":{}}}"#, entry(range));
        assert!(Header::parse(&file(&one("0,4"), 4)).is_ok());
        for (json, data) in [
            (one("0,4"), 3),
            (one("0,4"), 5),
            (one("1,5"), 5),
            (one("4,0"), 4),
            (one("0,18446744073709551615"), 4),
            (one("0,18446744073709551616"), 4),
            (one("-1,4"), 4),
            (format!(r#"{{"a":{0},"b":{0}}}"#, entry("0,4")), 4),
            (format!(r#"{{"a":{},"b":{}}}"#, entry("0,4"), entry("2,6")), 6),
            (format!(r#"{{"a":{0},"a":{0}}}"#, entry("0,4")), 4),
            (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}"#.into(), 4),
            (r#"{"__metadata__":{"a":1}}"#.into(), 0),
            ("[1]".into(), 0),
            ("{".into(), 0),
        ] {
            assert!(Header::parse(&file(&json, data)).is_err(), "{json} {data}");
        }
        let mut huge = file("{}", 0);
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(
            Header::parse(&huge).unwrap_err(),
            "safetensors header: expected at most 2 bytes, got 18446744073709551615"
        );
    }

    #[test]
    fn the_safetensors_crate_reads_what_is_written() {
        let entry = TensorEntry { dtype: "F32".into(), shape: vec![2, 1], data_offsets: [0, 8] };
        let metadata = BTreeMap::from([("key \"quoted\"".to_string(), "wért".to_string())]);
        let mut bytes = encode(&metadata, &[("some.name".into(), entry.clone())]);
        assert!(bytes.len().is_multiple_of(8));
        bytes.extend([1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()));
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = theirs.tensor("some.name").unwrap();
        assert_eq!((tensor.shape(), tensor.data()), (&[2, 1][..], &bytes[bytes.len() - 8..]));
        let (_, their_header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(their_header.metadata().as_ref().unwrap()["key \"quoted\""], "wért");
        assert_eq!(Header::parse(&bytes).unwrap().tensors["some.name"], entry);
    }
}
