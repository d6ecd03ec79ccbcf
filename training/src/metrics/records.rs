//! TFRecord, the framing of event files: `length: u64 | masked crc of it: u32 | bytes | masked crc of them: u32`, little endian.

use std::io::{self, Read, Write};

/// Longest record that is read back; a contact sheet stays below 32 MiB.
const MAX_RECORD_BYTES: u64 = 1 << 26;
/// Bytes of a record besides its content.
const FRAME_BYTES: u64 = 16;

/// CRC-32C, rotated and offset, so that a checksum of data that holds checksums stays a good one (TFRecord's definition).
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

pub(super) fn write_record(file: &mut impl Write, content: &[u8]) -> io::Result<()> {
    let length = (content.len() as u64).to_le_bytes();
    file.write_all(&length)?;
    file.write_all(&masked_crc(&length).to_le_bytes())?;
    file.write_all(content)?;
    file.write_all(&masked_crc(content).to_le_bytes())
}

/// Reads the next record into `content` and returns its bytes in the file. `None` at the end, and where what follows is no
/// whole record: a writer was killed there.
pub(super) fn read_record(file: &mut impl Read, content: &mut Vec<u8>) -> io::Result<Option<u64>> {
    let (mut length, mut crc) = ([0; 8], [0; 4]);
    if !fill(file, &mut length)? || !fill(file, &mut crc)? || u32::from_le_bytes(crc) != masked_crc(&length) {
        return Ok(None);
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_RECORD_BYTES {
        return Ok(None);
    }
    content.clear();
    file.take(length).read_to_end(content)?;
    if content.len() as u64 != length
        || !fill(file, &mut crc)?
        || u32::from_le_bytes(crc) != masked_crc(content)
    {
        return Ok(None);
    }
    Ok(Some(FRAME_BYTES + length))
}

/// False if the file ends before.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_as_tensorboard_frames_it() {
        // tensorboard.summary.writer.record_writer.RecordWriter of Event(wall_time=1.5, step=7,
        // summary=Summary(value=[Summary.Value(tag="loss", simple_value=0.25)])), tensorboard 2.21.
        let expected = b"\x1a\x00\x00\x00\x00\x00\x00\x00\x12\x9b\xd8-\x09\x00\x00\x00\x00\x00\x00\xf8?\x10\x07*\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x80>\xc9\xd0{\x8d";
        let mut written = Vec::new();
        write_record(&mut written, &expected[12..expected.len() - 4]).unwrap();
        assert_eq!(written, expected);
        let mut content = Vec::new();
        assert_eq!(read_record(&mut &written[..], &mut content).unwrap(), Some(expected.len() as u64));
        assert_eq!(content, expected[12..expected.len() - 4]);
    }

    #[test]
    fn what_is_no_whole_record_ends_the_file() {
        let mut written = Vec::new();
        write_record(&mut written, b"event").unwrap();
        let mut content = Vec::new();
        for length in 0..written.len() {
            assert_eq!(read_record(&mut &written[..length], &mut content).unwrap(), None, "{length}");
        }
        for byte in 0..written.len() {
            let mut wrong = written.clone();
            wrong[byte] ^= 4;
            assert_eq!(read_record(&mut &wrong[..], &mut content).unwrap(), None, "byte {byte}");
        }
    }
}
