//! Reads data whose size is claimed by a stream, without allocating the claimed size in advance.

use std::io::{self, BufRead, Read};

use crate::FormatError;
use crate::limits::MAX_HEADER_LINE_BYTES;

/// Bytes by which a buffer grows ahead of the data that fill it.
const GROWTH_BYTES: usize = 1 << 20;

/// Fills `buffer` with `len` bytes and returns how many the stream had. The buffer only grows as data arrive, so a
/// claimed size costs no memory; once it has its size, nothing is allocated.
pub(crate) fn read_frame_bytes(
    reader: &mut impl Read,
    buffer: &mut Vec<u8>,
    len: usize,
) -> io::Result<usize> {
    buffer.truncate(len);
    let mut filled = 0;
    loop {
        while filled < buffer.len() {
            match reader.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(filled),
                Ok(got) => filled += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == len {
            return Ok(filled);
        }
        buffer.resize(len.min(filled + GROWTH_BYTES.max(filled)), 0);
    }
}

/// Reads up to the next `\n` into `line`, without it. False at the end of the stream.
pub(crate) fn read_line(
    reader: &mut impl BufRead,
    what: &'static str,
    line: &mut Vec<u8>,
) -> Result<bool, FormatError> {
    line.clear();
    let most = MAX_HEADER_LINE_BYTES as u64;
    reader.by_ref().take(most).read_until(b'\n', line)?;
    match line.last() {
        None => Ok(false),
        Some(b'\n') => {
            line.pop();
            Ok(true)
        }
        Some(_) if line.len() < MAX_HEADER_LINE_BYTES => {
            Err(FormatError::Truncated { what, expected: line.len() + 1, got: line.len() })
        }
        Some(_) => Err(FormatError::Field {
            what,
            expected: format!("a line of at most {MAX_HEADER_LINE_BYTES} bytes"),
            got: "a longer one".into(),
        }),
    }
}
