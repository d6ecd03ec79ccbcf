//! Image messages of ROS 2.

use dinov2_files::chain;
use ruzstd::decoding::StreamingDecoder;

use super::chunk::field;
use super::{compressed, raw_image};
use crate::limits::MAX_RECORDING_CHUNK_BYTES;
use crate::recording::{COMPRESSED_IMAGE, CompressedImage, IMAGE, Image, message_from_cdr};
use crate::source::read::read_frame_bytes;
use crate::{FormatError, Frame};

/// First bytes of a zstd frame (RFC 8878, 3.1.1), and of a message that rosbag2 compressed by itself; CDR starts with 0.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Type of an image message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `sensor_msgs/msg/CompressedImage`.
    Compressed,
    /// `sensor_msgs/msg/Image`.
    Raw,
}

impl Kind {
    /// By the name of the message type; older writers leave `msg/` out.
    pub(super) fn of_schema(name: &str) -> Option<Self> {
        let is = |full: &str| name == full || name == full.replace("/msg/", "/");
        if is(COMPRESSED_IMAGE.name) { Some(Self::Compressed) } else { is(IMAGE).then_some(Self::Raw) }
    }
}

/// Buffers of decoding.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    unpacked: Vec<u8>,
    tight: Vec<u8>,
}

/// Decodes one message into `frame`: pixels, size, and the stamp as capture time if it is set. Returns a remark for the user.
///
/// # Errors
/// If the message is malformed, or the encoding is not one of a colour or grey camera.
pub(super) fn decode(
    kind: Kind,
    message: &[u8],
    scratch: &mut Scratch,
    frame: &mut Frame,
) -> Result<Option<String>, FormatError> {
    let broken = |error: crate::recording::CdrError| field("message", "an image".into(), chain(&error));
    let message = unpack(message, &mut scratch.unpacked)?;
    let (stamp, remark) = match kind {
        Kind::Compressed => {
            let message: CompressedImage<'_> = message_from_cdr(message).map_err(broken)?;
            (message.header.stamp, compressed::decode(&message.format, message.data, frame)?)
        }
        Kind::Raw => {
            let message: Image<'_> = message_from_cdr(message).map_err(broken)?;
            raw_image::decode(&message, &mut scratch.tight, frame)?;
            (message.header.stamp, None)
        }
    };
    frame.capture_ns = stamp.as_ns();
    Ok(remark)
}

/// The message, decompressed where rosbag2 compressed messages one by one.
fn unpack<'a>(message: &'a [u8], unpacked: &'a mut Vec<u8>) -> Result<&'a [u8], FormatError> {
    if !message.starts_with(&ZSTD_MAGIC) {
        return Ok(message);
    }
    let broken = |error| field("message", "a zstd frame".into(), format!("a broken one ({error})"));
    let mut decoder = StreamingDecoder::new(message).map_err(broken)?;
    let got = read_frame_bytes(&mut decoder, unpacked, MAX_RECORDING_CHUNK_BYTES)?;
    if got == MAX_RECORDING_CHUNK_BYTES {
        return Err(field("message", format!("less than {MAX_RECORDING_CHUNK_BYTES} bytes"), "more".into()));
    }
    Ok(&unpacked[..got])
}
