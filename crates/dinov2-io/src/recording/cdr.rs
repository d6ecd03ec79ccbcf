//! OMG CDR behind its four bytes of encapsulation, as ROS 2 serialises messages.

use byteorder::{BigEndian, LittleEndian};
use cdr_encoding::{from_bytes, to_writer};
use serde::{Deserialize, Serialize};

/// Representation identifier and options of plain CDR, little-endian: DDSI-RTPS 2.5, section 10.2.
const LITTLE_ENDIAN: [u8; 4] = [0, 1, 0, 0];
/// Likewise, big-endian.
const BIG_ENDIAN: [u8; 2] = [0, 0];

/// Why bytes are not the message that they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CdrError {
    /// Not plain CDR.
    #[error("CDR: expected a header of 00 00 or 00 01, got {0:02x?}")]
    Encapsulation(Vec<u8>),
    /// Bytes that end too early, or strings that are not UTF-8.
    #[error("malformed CDR")]
    Content(#[from] cdr_encoding::Error),
}

/// Replaces `bytes` by `message`, little-endian.
pub(crate) fn cdr_from_message(message: &impl Serialize, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(&LITTLE_ENDIAN);
    to_writer::<_, LittleEndian, _>(&mut *bytes, message).expect("writing structs into memory succeeds");
}

/// Reads a message of either byte order. Its byte arrays are borrowed. What follows it is ignored.
pub(crate) fn message_from_cdr<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CdrError> {
    let (header, body) = bytes.split_at_checked(LITTLE_ENDIAN.len()).unwrap_or((bytes, &[]));
    let (message, _) = if header.starts_with(&LITTLE_ENDIAN[..2]) {
        from_bytes::<T, LittleEndian>(body)?
    } else if header.starts_with(&BIG_ENDIAN) {
        from_bytes::<T, BigEndian>(body)?
    } else {
        return Err(CdrError::Encapsulation(header.to_vec()));
    };
    Ok(message)
}
