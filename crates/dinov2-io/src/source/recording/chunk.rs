//! Chunks and the records in them.

use std::io::Read;

use lz4_flex::frame::FrameDecoder;
use mcap::records::ChunkHeader;
use ruzstd::decoding::StreamingDecoder;

use crate::FormatError;
use crate::limits::MAX_RECORDING_CHUNK_BYTES;
use crate::source::read::read_frame_bytes;

/// Bytes before the content of a record: its opcode and the length of the content.
pub(super) const RECORD_HEAD_BYTES: usize = 1 + 8;

/// Opcode and length of content.
pub(super) fn record_head(head: &[u8; RECORD_HEAD_BYTES]) -> (u8, u64) {
    let [opcode, length @ ..] = *head;
    (opcode, u64::from_le_bytes(length))
}

/// The records of a chunk, decompressed and checked. `unpacked` is only used where the chunk is compressed.
///
/// # Errors
/// A chunk that is damaged, too large or compressed in an unknown way.
pub(super) fn unpack<'a>(
    header: &ChunkHeader,
    stored: &'a [u8],
    unpacked: &'a mut Vec<u8>,
) -> Result<&'a [u8], FormatError> {
    let limit = MAX_RECORDING_CHUNK_BYTES as u64;
    if header.uncompressed_size > limit {
        return Err(field("chunk", format!("at most {limit} bytes"), header.uncompressed_size.to_string()));
    }
    let expected = header.uncompressed_size as usize;
    let records = match header.compression.as_str() {
        "" => stored,
        "lz4" => {
            let got = read_frame_bytes(&mut FrameDecoder::new(stored), unpacked, expected)?;
            &unpacked[..got]
        }
        "zstd" => {
            let broken = |error| FormatError::Io(std::io::Error::other(error));
            let mut decoder = StreamingDecoder::new(stored).map_err(broken)?;
            let got = read_frame_bytes(&mut decoder, unpacked, expected)?;
            &unpacked[..got]
        }
        other => {
            let expected = "a compression of lz4, zstd or none".into();
            return Err(field(
                "chunk",
                expected,
                format!("{:?}", other.chars().take(20).collect::<String>()),
            ));
        }
    };
    if records.len() != expected {
        return Err(FormatError::Truncated { what: "chunk", expected, got: records.len() });
    }
    // Zero stands for a checksum that was not computed.
    let checksum = crc32fast::hash(records);
    if header.uncompressed_crc != 0 && header.uncompressed_crc != checksum {
        let expected = format!("a checksum of {:08x}", header.uncompressed_crc);
        return Err(field("chunk", expected, format!("{checksum:08x}")));
    }
    Ok(records)
}

/// Opcode and content of each record of a chunk. An incomplete record at the end is ignored.
pub(super) fn records(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
        let (opcode, length) = record_head(head);
        let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        bytes = rest;
        Some((opcode, content))
    })
}

/// Fills `buffer` with the next `length` bytes of `stream`, which were seen to be there.
pub(super) fn read_content(
    stream: &mut impl Read,
    buffer: &mut Vec<u8>,
    length: u64,
) -> Result<(), FormatError> {
    if length > MAX_RECORDING_CHUNK_BYTES as u64 {
        let expected = format!("at most {MAX_RECORDING_CHUNK_BYTES} bytes");
        return Err(field("record", expected, length.to_string()));
    }
    let expected = length as usize;
    let got = read_frame_bytes(stream, buffer, expected)?;
    if got < expected {
        return Err(FormatError::Truncated { what: "record", expected, got });
    }
    Ok(())
}

pub(super) fn field(what: &'static str, expected: String, got: String) -> FormatError {
    FormatError::Field { what, expected, got }
}
