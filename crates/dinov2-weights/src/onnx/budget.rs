//! Bounds what decoding an ONNX file may allocate.
//!
//! A message of two bytes becomes a struct of hundreds, so a hostile file of repeated empty messages would grow
//! a hundredfold when decoded. This walk over the wire format allocates nothing and adds up what the structs of
//! [`super::proto`] will take, without the weights, which stay in the file's own pages.

use prost::DecodeError;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::proto::{
    AttributeProto, GraphProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
};

/// Most bytes of decoded structure. ViT-g (1.1 B parameters, 40 blocks) takes about 10 MB.
pub(super) const MAX_DECODED_BYTES: usize = 256 << 20;
/// Graphs inside attributes inside graphs, and so on; a DINOv2 graph nests none.
const MAX_NESTING: usize = 32;

#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    /// A dimension, an operator set or a key with its value: strings and numbers only.
    Pair,
}

/// What a length-delimited field holds.
enum Content {
    Message(Message, usize),
    /// Strings of the file: they take their own length and a header.
    Text,
    /// Integers of one byte and more that become eight.
    Integers,
    /// Weights: as long in memory as in the file, or not decoded at all.
    Weights,
}

/// Refuses bytes whose decoded structure would exceed [`MAX_DECODED_BYTES`].
///
/// # Errors
/// The reason: too large, nested too deeply or not protobuf.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    walk(bytes, Message::Model, MAX_NESTING, &mut { MAX_DECODED_BYTES })
}

fn walk(mut bytes: &[u8], message: Message, nesting: usize, left: &mut usize) -> Result<(), String> {
    let malformed = |error: DecodeError| format!("protobuf: {error}");
    let nesting = nesting.checked_sub(1).ok_or("protobuf: nested too deeply")?;
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes).map_err(malformed)?;
        if wire != WireType::LengthDelimited {
            spend(left, size_of::<u64>())?;
            skip_field(wire, tag, &mut bytes, DecodeContext::default()).map_err(malformed)?;
            continue;
        }
        let length = decode_varint(&mut bytes).map_err(malformed)?;
        let length = usize::try_from(length).ok().filter(|&length| length <= bytes.len());
        let length = length.ok_or("protobuf: expected more bytes, got the end of the file")?;
        let (inner, _) = bytes.split_at(length);
        bytes.advance(length);
        match content(message, tag) {
            Content::Message(message, size) => {
                spend(left, size)?;
                walk(inner, message, nesting, left)?;
            }
            Content::Text => spend(left, size_of::<String>() + length)?,
            Content::Integers => spend(left, length.saturating_mul(size_of::<i64>()))?,
            Content::Weights => spend(left, size_of::<u64>())?,
        }
    }
    Ok(())
}

fn spend(left: &mut usize, bytes: usize) -> Result<(), String> {
    *left = left
        .checked_sub(bytes)
        .ok_or_else(|| format!("graph: expected at most {MAX_DECODED_BYTES} bytes of structure, got more"))?;
    Ok(())
}

fn content(message: Message, tag: u32) -> Content {
    let pair = Content::Message(Message::Pair, size_of::<StringStringEntryProto>());
    match (message, tag) {
        (Message::Model, 7) | (Message::Attribute, 6 | 11) => {
            Content::Message(Message::Graph, size_of::<GraphProto>())
        }
        (Message::Graph, 1) => Content::Message(Message::Node, size_of::<NodeProto>()),
        (Message::Graph, 5) | (Message::Attribute, 5 | 10) => {
            Content::Message(Message::Tensor, size_of::<TensorProto>())
        }
        (Message::Graph, 11..=13) => Content::Message(Message::ValueInfo, size_of::<ValueInfoProto>()),
        (Message::ValueInfo, 2) => Content::Message(Message::Type, 0),
        (Message::Type, 1) => Content::Message(Message::TensorType, 0),
        (Message::TensorType, 2) => Content::Message(Message::Shape, 0),
        (Message::Shape, 1) | (Message::Model, 8 | 14) | (Message::Tensor, 13) => pair,
        (Message::Node, 5) => Content::Message(Message::Attribute, size_of::<AttributeProto>()),
        (Message::Attribute, 8) | (Message::Tensor, 1 | 7) => Content::Integers,
        (Message::Attribute, 7) | (Message::Tensor, 4 | 5 | 9 | 10) => Content::Weights,
        _ => Content::Text,
    }
}
