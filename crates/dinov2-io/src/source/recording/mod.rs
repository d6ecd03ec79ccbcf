//! Reads the images of one topic of a recording (MCAP with ROS 2 messages).
//!
//! The index at the end of the file is not needed, so that the recording of a killed recorder can be replayed. Chunks are
//! read one by one; their images are held until no later chunk can contain an earlier image. Other messages are skipped.

mod bayer;
mod chunk;
mod compressed;
mod picture;
mod raw_image;
mod scan;
mod stream;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{Read, Seek, SeekFrom};

use dinov2_files::chain;
use mcap::read::parse_record;
use mcap::records::{Record, op};

use crate::limits::MAX_RECORDING_HELD_BYTES;
use crate::recording::OWN_TOPICS;
use crate::{FormatError, Frame};
use chunk::{field, read_content, records, unpack};
use picture::Scratch;
use scan::{Channels, Cut, Part};

pub(crate) use stream::RecordingStream;

/// An image message that waits for its turn; ordered by time, then by its place in the file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    log_time: u64,
    order: u64,
    channel: u16,
    message: Vec<u8>,
}

/// Count of what could not be read.
#[derive(Debug, Default)]
struct Lost {
    messages: u64,
    /// Chunks with an unknown number of images.
    chunks: u64,
    first: Option<String>,
}

impl Lost {
    fn add(&mut self, messages: u64, reason: &FormatError) {
        self.messages += messages;
        self.first.get_or_insert_with(|| chain(reason));
    }
}

/// Reads the images of one topic out of a recording, in the order of their log times.
#[derive(Debug)]
pub struct RecordingReader<R> {
    stream: R,
    wanted: Option<String>,
    channels: Channels,
    parts: std::iter::Peekable<std::vec::IntoIter<Part>>,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: usize,
    order: u64,
    /// The channel that is replayed: that of the first image that can be decoded.
    chosen: Option<u16>,
    /// Number of images of the chosen channel, if known.
    frames: Option<u64>,
    /// The first frame, decoded in order to choose.
    first: Option<Frame>,
    lost: Lost,
    cut: Option<Cut>,
    notes: Vec<String>,
    /// Whether a note on the encoding was made.
    remarked: bool,
    content: Vec<u8>,
    unpacked: Vec<u8>,
    scratch: Scratch,
}

/// Why there is nothing to replay.
#[derive(Debug)]
enum OpenFault {
    /// The file is complete but has no images of the topic.
    NoImages(FormatError),
    /// The file or a part of it cannot be read.
    Broken(FormatError),
}

impl From<FormatError> for OpenFault {
    fn from(reason: FormatError) -> Self {
        Self::Broken(reason)
    }
}

impl<R: Read + Seek> RecordingReader<R> {
    /// Finds out what is in the file and reads the first image of `topic`, or of the topic that has one first, topics
    /// below `/dinov2/` aside.
    ///
    /// # Errors
    /// If the file is not MCAP, does not contain the topic, has no images that can be decoded, or has an invalid index.
    pub fn new(stream: R, topic: Option<&str>) -> Result<Self, FormatError> {
        Self::open(stream, topic).map_err(|reason| match reason {
            OpenFault::NoImages(reason) | OpenFault::Broken(reason) => reason,
        })
    }

    fn open(mut stream: R, topic: Option<&str>) -> Result<Self, OpenFault> {
        let scan::Contents { channels, mut parts, cut } = scan::scan(&mut stream)?;
        let counted = parts.iter().all(|part| !part.counts.is_empty());
        let mut counts = HashMap::new();
        for (channel, count) in parts.iter().flat_map(|part| &part.counts) {
            *counts.entry(*channel).or_insert(0) += count;
        }
        // The first chunk stays the first: where the file has no summary, it is the one that names the topics.
        if let Some((_, later)) = parts.split_first_mut() {
            later.sort_by_key(|part| part.start_ns);
        }
        let mut reader = Self {
            stream,
            wanted: topic.map(str::to_string),
            channels,
            parts: parts.into_iter().peekable(),
            held: BinaryHeap::new(),
            held_bytes: 0,
            order: 0,
            chosen: None,
            frames: None,
            first: None,
            lost: Lost::default(),
            cut,
            notes: Vec::new(),
            remarked: false,
            content: Vec::new(),
            unpacked: Vec::new(),
            scratch: Scratch::default(),
        };
        let first = reader.choose()?;
        reader.frames = reader.chosen.filter(|_| counted).and_then(|chosen| counts.get(&chosen).copied());
        reader.first = Some(first);
        Ok(reader)
    }

    /// The topic that is replayed.
    pub fn topic(&self) -> &str {
        let channel = self.chosen.and_then(|chosen| self.channels.image(chosen));
        channel.map_or("", |channel| &channel.topic)
    }

    /// Number of its images, if known.
    pub fn len_hint(&self) -> Option<usize> {
        self.frames.and_then(|frames| usize::try_from(frames).ok())
    }

    /// Notes for the user: other topics, doubtful colours, a killed recorder. Each is returned once.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Reads the next image into `frame`: pixels, size, and its stamp as capture time; if that is not set, the time of
    /// recording. What is broken or cannot be read is skipped and counted. False at the end of the recording.
    ///
    /// # Errors
    /// At the end, once: images that were lost, a file that breaks off within a record.
    pub fn read_into(&mut self, frame: &mut Frame) -> Result<bool, FormatError> {
        if let Some(first) = self.first.take() {
            (frame.pixels, frame.width_px, frame.height_px) = (first.pixels, first.width_px, first.height_px);
            frame.capture_ns = first.capture_ns;
            return Ok(true);
        }
        while let Some(held) = self.next_held() {
            match self.decode(&held, frame) {
                Ok(()) => return Ok(true),
                Err(reason) => self.lost.add(1, &reason),
            }
        }
        match self.take_losses() {
            Some(losses) => Err(losses),
            None => Ok(false),
        }
    }

    /// The first image that can be decoded; its channel becomes the chosen one.
    fn choose(&mut self) -> Result<Frame, OpenFault> {
        let mut frame = Frame::new();
        // Images that cannot be decoded, by channel. They are counted as lost only if their channel is chosen.
        let mut failed: HashMap<u16, (u64, FormatError)> = HashMap::new();
        while let Some(held) = self.next_held() {
            match self.decode(&held, &mut frame) {
                Ok(()) => {
                    self.chosen = Some(held.channel);
                    if let Some((count, reason)) = failed.remove(&held.channel) {
                        self.lost.add(count, &reason);
                    }
                    self.held.retain(|Reverse(other)| other.channel == held.channel);
                    self.held_bytes = self.held.iter().map(|Reverse(other)| other.message.len()).sum();
                    self.note_other_topics();
                    return Ok(frame);
                }
                Err(reason) => failed.entry(held.channel).or_insert((0, reason)).0 += 1,
            }
        }
        Err(self.nothing(failed.into_values().next()))
    }

    fn nothing(&self, failed: Option<(u64, FormatError)>) -> OpenFault {
        let topics = self.channels.image_topics();
        let expected = match &self.wanted {
            Some(topic) => format!("images on the topic {topic}"),
            None => "a topic of sensor_msgs/msg/CompressedImage or Image in cdr".into(),
        };
        let reason = failed.map(|(_, reason)| chain(&reason)).or_else(|| self.lost.first.clone());
        let is_whole = reason.is_none() && self.cut.is_none_or(|cut| cut.data_ended);
        let mut got = match (topics.is_empty(), reason) {
            (_, Some(reason)) => format!("none that can be read ({reason})"),
            (true, None) => format!("none ({})", self.channels.describe()),
            (false, None) => format!("none (topics with images: {})", topics.join(", ")),
        };
        if let Some(Cut { at, rest, data_ended: false }) = self.cut {
            let unread = if rest == 0 { String::new() } else { format!(", {rest} bytes behind it") };
            got.push_str(&format!("; the file breaks off: its last whole record ends at byte {at}{unread}"));
        }
        let reason = field("recording", expected, got);
        if is_whole { OpenFault::NoImages(reason) } else { OpenFault::Broken(reason) }
    }

    fn decode(&mut self, held: &Held, frame: &mut Frame) -> Result<(), FormatError> {
        let channel = self.channels.image(held.channel).expect("only images are held");
        let remark = picture::decode(channel.kind, &held.message, &mut self.scratch, frame)?;
        frame.capture_ns = frame.capture_ns.or(Some(held.log_time));
        if let Some(remark) = remark.filter(|_| !self.remarked) {
            self.remarked = true;
            self.notes.push(remark);
        }
        Ok(())
    }

    /// The next message of the chosen channel, or of any channel with images while none is chosen.
    fn next_held(&mut self) -> Option<Held> {
        loop {
            let earliest = self.held.peek().map(|Reverse(held)| held.log_time);
            let ready = match (earliest, self.parts.peek()) {
                (Some(earliest), Some(part)) => {
                    earliest < part.start_ns || self.held_bytes > MAX_RECORDING_HELD_BYTES
                }
                (Some(_), None) => true,
                (None, None) => return None,
                (None, Some(_)) => false,
            };
            if ready {
                let held = self.held.pop().map(|Reverse(held)| held);
                self.held_bytes -= held.as_ref().map_or(0, |held| held.message.len());
                return held;
            }
            let part = self.parts.next().expect("a part that was seen just now");
            self.load(&part);
        }
    }

    /// Holds the images of a part; a damaged one is counted.
    fn load(&mut self, part: &Part) {
        let mut content = std::mem::take(&mut self.content);
        let done = self.read_part(part, &mut content);
        self.content = content;
        if let Err(reason) = done {
            self.count_lost(part, &reason);
        }
    }

    fn read_part(&mut self, part: &Part, content: &mut Vec<u8>) -> Result<(), FormatError> {
        self.stream.seek(SeekFrom::Start(part.offset))?;
        read_content(&mut self.stream, content, part.length)?;
        let content = &content[..part.length as usize];
        if part.opcode == op::MESSAGE {
            self.hold(content);
            return Ok(());
        }
        self.hold_chunk(content)
    }

    fn hold_chunk(&mut self, content: &[u8]) -> Result<(), FormatError> {
        let damaged = |error: mcap::McapError| field("chunk", "a header".into(), chain(&error));
        let Record::Chunk { header, data } = parse_record(op::CHUNK, content).map_err(damaged)? else {
            unreachable!("a chunk is parsed as a chunk")
        };
        let mut unpacked = std::mem::take(&mut self.unpacked);
        let done = unpack(&header, &data, &mut unpacked).map(|bytes| {
            for (opcode, content) in records(bytes) {
                match opcode {
                    op::SCHEMA | op::CHANNEL => self.channels.learn(opcode, content),
                    op::MESSAGE => self.hold(content),
                    _ => {}
                }
            }
        });
        self.unpacked = unpacked;
        done
    }

    /// Keeps a message if it may be replayed.
    fn hold(&mut self, content: &[u8]) {
        let Ok(Record::Message { header, data }) = parse_record(op::MESSAGE, content) else {
            return self.lost.add(1, &field("message", "a header".into(), "a shorter record".into()));
        };
        if !self.channels.is_known(header.channel_id) {
            let got = format!("channel {}", header.channel_id);
            return self.lost.add(1, &field("message", "a channel that was announced".into(), got));
        }
        if !self.is_wanted(header.channel_id) {
            return;
        }
        self.held_bytes += data.len();
        self.order += 1;
        self.held.push(Reverse(Held {
            log_time: header.log_time,
            order: self.order,
            channel: header.channel_id,
            message: data.into_owned(),
        }));
    }

    fn is_wanted(&self, channel: u16) -> bool {
        let Some(images) = self.channels.image(channel) else { return false };
        match (self.chosen, &self.wanted) {
            (Some(chosen), _) => chosen == channel,
            (None, Some(topic)) => images.topic == *topic,
            (None, None) => !images.topic.starts_with(OWN_TOPICS),
        }
    }

    fn count_lost(&mut self, part: &Part, reason: &FormatError) {
        if part.counts.is_empty() {
            self.lost.chunks += 1;
        }
        let images: u64 = part
            .counts
            .iter()
            .filter(|(channel, _)| !self.channels.is_known(*channel) || self.is_wanted(*channel))
            .map(|(_, count)| count)
            .sum();
        self.lost.add(images, reason);
    }

    fn note_other_topics(&mut self) {
        let own = self.topic().to_string();
        let topics = self.channels.image_topics();
        let others: Vec<_> =
            topics.into_iter().filter(|topic| *topic != own && !topic.starts_with(OWN_TOPICS)).collect();
        if !others.is_empty() && self.wanted.is_none() {
            self.notes.push(format!("replays the topic {own}; other images are on {}", others.join(", ")));
        }
    }

    /// What is missing, once. If a recorder was killed between two records, nothing is missing.
    fn take_losses(&mut self) -> Option<FormatError> {
        let Lost { messages, chunks, first } = std::mem::take(&mut self.lost);
        let mut losses = Vec::new();
        if let Some(first) = first {
            let chunks = match chunks {
                0 => String::new(),
                chunks => format!(" and those of {chunks} damaged chunks without an index"),
            };
            losses.push(format!("lost {messages} messages{chunks}, the first to: {first}"));
        }
        match self.cut.take() {
            Some(Cut { at, rest, data_ended: false }) if rest > 0 => losses.push(format!(
                "the file breaks off {rest} bytes into the record at byte {at}; everything before it was read"
            )),
            Some(Cut { at, .. }) => {
                self.notes.push(format!("not closed by its recorder; everything up to byte {at} was read"));
            }
            None => {}
        }
        (!losses.is_empty()).then(|| field("recording", "a whole one".into(), losses.join("; ")))
    }
}
