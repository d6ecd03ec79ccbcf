//! Lists the parts of a recording by walking its records from the start without reading large ones. The index at the end is
//! not needed, because a cut-off recording has none.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use mcap::MAGIC;
use mcap::read::parse_record;
use mcap::records::{Record, op};

use super::chunk::{RECORD_HEAD_BYTES, field, read_content, record_head};
use super::picture::Kind;
use crate::FormatError;
use crate::limits::{MAX_RECORDING_CHUNK_BYTES, MAX_RECORDING_PARTS};
use crate::recording::MESSAGE_ENCODING;

/// Most topics that a message lists.
const LISTED_TOPICS: usize = 8;

/// A topic with images.
#[derive(Clone, Debug)]
pub(super) struct ImageChannel {
    pub(super) topic: String,
    pub(super) kind: Kind,
}

/// A topic of any kind.
#[derive(Clone, Debug)]
struct Channel {
    topic: String,
    /// Name of its message type.
    schema: String,
    /// How its messages are serialised.
    encoding: String,
    images: Option<ImageChannel>,
}

/// Profile, schemas and channels seen so far.
#[derive(Debug, Default)]
pub(super) struct Channels {
    profile: String,
    schemas: HashMap<u16, String>,
    known: HashMap<u16, Channel>,
}

impl Channels {
    /// Stores a header, schema or channel. Unreadable ones are ignored.
    pub(super) fn learn(&mut self, opcode: u8, content: &[u8]) {
        match parse_record(opcode, content) {
            Ok(Record::Header(header)) => self.profile = header.profile,
            Ok(Record::Schema { header, .. }) => {
                self.schemas.insert(header.id, header.name);
            }
            Ok(Record::Channel(channel)) => {
                let schema = self.schemas.get(&channel.schema_id).cloned().unwrap_or_default();
                let kind = Kind::of_schema(&schema).filter(|_| channel.message_encoding == MESSAGE_ENCODING);
                let images = kind.map(|kind| ImageChannel { topic: channel.topic.clone(), kind });
                let (topic, encoding) = (channel.topic, channel.message_encoding);
                self.known.insert(channel.id, Channel { topic, schema, encoding, images });
            }
            _ => {}
        }
    }

    pub(super) fn image(&self, channel: u16) -> Option<&ImageChannel> {
        self.known.get(&channel)?.images.as_ref()
    }

    pub(super) fn is_known(&self, channel: u16) -> bool {
        self.known.contains_key(&channel)
    }

    /// Topics with images, sorted.
    pub(super) fn image_topics(&self) -> Vec<&str> {
        let images = self.known.values().filter_map(|channel| channel.images.as_ref());
        let mut topics: Vec<_> = images.map(|channel| channel.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// Contents of the file for a message: profile and topics with type and serialisation.
    pub(super) fn describe(&self) -> String {
        let mut topics: Vec<_> = self
            .known
            .values()
            .map(|Channel { topic, schema, encoding, .. }| {
                let schema = if schema.is_empty() { "no type" } else { schema };
                let encoding = if encoding.is_empty() { "no encoding" } else { encoding };
                format!("{} ({}, {})", short(topic), short(schema), short(encoding))
            })
            .collect();
        topics.sort_unstable();
        let more = topics.len().saturating_sub(LISTED_TOPICS);
        topics.truncate(LISTED_TOPICS);
        let profile = if self.profile.is_empty() {
            "no profile".into()
        } else {
            format!("profile {}", short(&self.profile))
        };
        match (topics.is_empty(), more) {
            (true, _) => format!("{profile}, no topics"),
            (false, 0) => format!("{profile}, topics {}", topics.join(", ")),
            (false, more) => format!("{profile}, topics {} and {more} more", topics.join(", ")),
        }
    }
}

/// A name from outside, short and on one line.
fn short(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { '?' } else { letter }).take(60).collect()
}

/// A chunk, or a message outside of chunks.
#[derive(Debug)]
pub(super) struct Part {
    /// `op::CHUNK` or `op::MESSAGE`.
    pub(super) opcode: u8,
    /// Where its content starts in the file, and its length.
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Log time of its first message.
    pub(super) start_ns: u64,
    /// Messages by channel, from the index after a chunk.
    pub(super) counts: Vec<(u16, u64)>,
}

/// The parts of a recording.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) channels: Channels,
    /// In the order of the file.
    pub(super) parts: Vec<Part>,
    pub(super) cut: Option<Cut>,
}

/// Position at which a file is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// End of the last complete record.
    pub(super) at: u64,
    /// Bytes of the next record that are present; 0 if the file ends between two records.
    pub(super) rest: u64,
    /// Only the index is missing: the messages are complete.
    pub(super) data_ended: bool,
}

/// Bytes of the start of a chunk's content that are looked at: the log time of its first message.
const CHUNK_START_BYTES: usize = 8;
/// Bytes of the start of a message: channel, sequence, log time.
const MESSAGE_START_BYTES: usize = 2 + 4 + 8;
/// Bytes of the start of a message index: channel and length of the entries in bytes.
const INDEX_START_BYTES: usize = 2 + 4;
/// Bytes of an entry of a message index.
const INDEX_ENTRY_BYTES: u64 = 16;

/// Walks the whole file.
///
/// # Errors
/// What is no MCAP file, or has too many parts; reading that fails.
pub(super) fn scan(stream: &mut (impl Read + Seek)) -> Result<Contents, FormatError> {
    let end = stream.seek(SeekFrom::End(0))?;
    stream.seek(SeekFrom::Start(0))?;
    let mut magic = [0; 8];
    if end < magic.len() as u64 {
        return Err(FormatError::Truncated { what: "MCAP magic", expected: magic.len(), got: end as usize });
    }
    stream.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(field("MCAP magic", format!("{MAGIC:02x?}"), format!("{magic:02x?}")));
    }
    let (mut contents, mut content) = (Contents::default(), Vec::new());
    let (mut at, mut data_ended) = (magic.len() as u64, false);
    loop {
        let content_at = at + RECORD_HEAD_BYTES as u64;
        let head = if content_at <= end { Some(read_array(stream)?) } else { None };
        let record = head.map(|head| record_head(&head)).filter(|(_, length)| *length <= end - content_at);
        let Some((opcode, length)) = record else {
            contents.cut = Some(Cut { at, rest: end - at, data_ended });
            return Ok(contents);
        };
        if opcode == op::FOOTER {
            return Ok(contents);
        }
        data_ended |= opcode == op::DATA_END;
        look_at(stream, &mut contents, &mut content, (opcode, content_at, length))?;
        if contents.parts.len() > MAX_RECORDING_PARTS {
            let expected = format!("at most {MAX_RECORDING_PARTS} chunks");
            return Err(field("recording", expected, "more".into()));
        }
        at = content_at + length;
        stream.seek(SeekFrom::Start(at))?;
    }
}

/// Reads the needed fields of a record. Records shorter than their kind requires are skipped.
fn look_at(
    stream: &mut (impl Read + Seek),
    contents: &mut Contents,
    content: &mut Vec<u8>,
    (opcode, offset, length): (u8, u64, u64),
) -> Result<(), FormatError> {
    let part = |start_ns| Part { opcode, offset, length, start_ns, counts: Vec::new() };
    match opcode {
        op::HEADER | op::SCHEMA | op::CHANNEL if length <= MAX_RECORDING_CHUNK_BYTES as u64 => {
            read_content(stream, content, length)?;
            contents.channels.learn(opcode, content);
        }
        op::CHUNK if length >= CHUNK_START_BYTES as u64 => {
            let start = read_array::<CHUNK_START_BYTES>(stream)?;
            contents.parts.push(part(u64::from_le_bytes(start)));
        }
        op::MESSAGE if length >= MESSAGE_START_BYTES as u64 => {
            let start = read_array::<MESSAGE_START_BYTES>(stream)?;
            let [c0, c1, _, _, _, _, log_time @ ..] = start;
            // Outside of chunks, a channel comes before its messages.
            let channel = u16::from_le_bytes([c0, c1]);
            if contents.channels.image(channel).is_some() {
                let counts = vec![(channel, 1)];
                contents.parts.push(Part { counts, ..part(u64::from_le_bytes(log_time)) });
            }
        }
        op::MESSAGE_INDEX if length >= INDEX_START_BYTES as u64 => {
            let [c0, c1, ..] = read_array::<INDEX_START_BYTES>(stream)?;
            let entries = (length - INDEX_START_BYTES as u64) / INDEX_ENTRY_BYTES;
            if let Some(chunk) = contents.parts.last_mut() {
                chunk.counts.push((u16::from_le_bytes([c0, c1]), entries));
            }
        }
        _ => {}
    }
    Ok(())
}

fn read_array<const N: usize>(stream: &mut impl Read) -> Result<[u8; N], FormatError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
