//! The messages of `/ws`: JSON texts in both directions, and binary messages of the server (header and payload).
//! `docs/live-page.md` documents them for users.

use bytes::{BufMut, Bytes, BytesMut};
use dinov2_core::{HeadOutput, PatchGrid};
use dinov2_heads::{PcaCommand, PcaFit};
use dinov2_io::LiveStats;
use half::f16;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::feed::ViewFrame;

/// First bytes of every binary message.
pub const MAGIC: [u8; 4] = *b"DV2V";
/// Version of the protocol, in the fifth byte of every binary message and in `hello`.
pub const VERSION: u8 = 1;
/// Length of the header of a binary message.
pub const HEADER_BYTES: usize = 48;

/// Flag: the capture time is known.
const CAPTURE_KNOWN: u8 = 1;

/// Payload of a binary message.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Similarity to the picked patch, f32 `[rows, cols]`.
    Similarity = 1,
    /// Patch features, f32 or f16 `[rows, cols, dim]`.
    Features = 2,
    /// The camera's picture, a JPEG file.
    Picture = 3,
    /// Colours of the patches, u8 `[rows, cols, 3]`.
    Colours = 4,
    /// A head output that is a grid: its name (u8 length and UTF-8), then f32 or u8 `[rows, cols, dim]`; dim is 3 for colours.
    Output = 5,
}

/// Type of the values of a binary message.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Dtype {
    U8 = 0,
    F16 = 1,
    F32 = 2,
    /// Not an array: a JPEG file.
    Jpeg = 3,
}

/// A message of a client: an object with one of these keys.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientMessage {
    Pick(Point),
    /// A feature `[dim]` to compare with, such as the one in `picked`.
    Query(Vec<f32>),
    Unpick(bool),
    Subscribe(Topic),
    Unsubscribe(Topic),
    Pca(PcaCommand),
    /// A command for a head.
    Head(HeadCommand),
}

/// A point of the picture, 0..=1 from the top left.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

/// A command for a head, by its name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeadCommand {
    pub(crate) name: String,
    pub(crate) command: Value,
}

/// What a client can subscribe to; sent with every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Topic {
    /// Features in f32.
    Features,
    /// Features in f16.
    FeaturesF16,
    /// The camera's picture and the colours of its patches.
    Pictures,
    /// Outputs of all heads except `pca`.
    Outputs,
}

/// A text message of the server.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ServerMessage<'a> {
    Hello {
        version: u8,
        title: &'a str,
        model: &'a str,
        cameras: &'a [String],
        camera: usize,
        pca: PcaFit,
    },
    Stats {
        stats: &'a LiveStats,
        clients: usize,
        pca: PcaFit,
        trouble: Option<String>,
    },
    Grid {
        camera: usize,
        rows: usize,
        cols: usize,
        dim: usize,
        width_px: usize,
        height_px: usize,
    },
    Picked {
        camera: usize,
        frame: u64,
        row: usize,
        col: usize,
        feature: &'a [f32],
    },
    Queried {
        camera: usize,
        frame: u64,
    },
    Unpicked,
    Subscribed {
        topic: Topic,
    },
    Unsubscribed {
        topic: Topic,
    },
    Pca {
        asked: PcaCommand,
    },
    Head {
        name: String,
    },
    /// Head outputs that are not grids: name to kind and value.
    Outputs {
        camera: usize,
        frame: u64,
        outputs: Map<String, Value>,
    },
    Error {
        message: String,
    },
}

impl ServerMessage<'_> {
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("plain data with text keys")
    }
}

/// Parses and checks a message of a client.
///
/// # Errors
/// The problem, as text for the client.
pub(crate) fn parse_client_message(text: &str) -> Result<ClientMessage, String> {
    let message = serde_json::from_str(text).map_err(|error| format!("message: {error}"))?;
    match message {
        ClientMessage::Pick(Point { x, y }) if !(0.0..=1.0).contains(&x) || !(0.0..=1.0).contains(&y) => {
            Err(format!("pick: expected x and y in 0..=1, got {x} and {y}"))
        }
        ClientMessage::Query(feature) if !feature.iter().all(|value| value.is_finite()) => {
            Err(String::from("query: expected finite numbers"))
        }
        ClientMessage::Unpick(false) => Err(String::from("unpick: expected true")),
        message => Ok(message),
    }
}

/// A header over the patch grid, with capacity for `payload` more bytes. dim: values per patch.
fn message(
    kind: Kind,
    dtype: Dtype,
    camera: usize,
    frame: &ViewFrame,
    dim: usize,
    payload: usize,
) -> BytesMut {
    message_of_grid(kind, dtype, camera, frame, (frame.grid, dim), payload)
}

/// As [`message`], for any grid.
fn message_of_grid(
    kind: Kind,
    dtype: Dtype,
    camera: usize,
    frame: &ViewFrame,
    (grid, dim): (PatchGrid, usize),
    payload: usize,
) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + payload);
    bytes.put_slice(&MAGIC);
    let flags = if frame.capture_ns.is_some() { CAPTURE_KNOWN } else { 0 };
    bytes.put_slice(&[VERSION, kind as u8, dtype as u8, flags]);
    // The limits on cameras, sides and dim keep these below 2^32.
    for number in [camera, grid.rows, grid.cols, dim] {
        bytes.put_u32_le(number as u32);
    }
    bytes.put_u64_le(frame.index);
    bytes.put_u64_le(frame.capture_ns.unwrap_or(0));
    bytes.put_f64_le(frame.latency_ms);
    debug_assert_eq!(bytes.len(), HEADER_BYTES);
    bytes
}

pub(crate) fn picture(camera: usize, frame: &ViewFrame, jpeg: &[u8]) -> Bytes {
    let mut bytes = message(Kind::Picture, Dtype::Jpeg, camera, frame, 0, jpeg.len());
    bytes.put_slice(jpeg);
    bytes.freeze()
}

pub(crate) fn colours(camera: usize, frame: &ViewFrame) -> Bytes {
    let mut bytes = message(Kind::Colours, Dtype::U8, camera, frame, 3, frame.colours.len());
    bytes.put_slice(&frame.colours);
    bytes.freeze()
}

/// [`Kind::Output`] for a head output that is a grid; None for others.
pub(crate) fn output(camera: usize, frame: &ViewFrame, name: &str, output: &HeadOutput) -> Option<Bytes> {
    let (grid, dtype, dim, values) = match output {
        HeadOutput::Map { grid, values } => (grid, Dtype::F32, 1, f32_bytes(values)),
        HeadOutput::Mask { grid, classes } => (grid, Dtype::U8, 1, classes.clone()),
        HeadOutput::Colours { grid, rgb } => (grid, Dtype::U8, 3, rgb.clone()),
        HeadOutput::Boxes(_) | HeadOutput::Vector(_) | HeadOutput::Score(_) => return None,
    };
    // Names of heads and outputs are short; the length is one byte.
    let name = &name.as_bytes()[..name.len().min(255)];
    let mut bytes =
        message_of_grid(Kind::Output, dtype, camera, frame, (*grid, dim), 1 + name.len() + values.len());
    bytes.put_u8(name.len() as u8);
    bytes.put_slice(name);
    bytes.put_slice(&values);
    Some(bytes.freeze())
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A head output that is not a grid: `{"kind": KIND, "value": VALUE}`; None for grids. Boxes are objects with left, top, width and
/// height as fractions of the picture, score and class.
pub(crate) fn output_json(frame: &ViewFrame, output: &HeadOutput) -> Option<Value> {
    let value = match output {
        HeadOutput::Score(value) => json!(value),
        HeadOutput::Vector(values) => json!(values),
        HeadOutput::Boxes(boxes) => {
            let (width, height) = (frame.image_px.0 as f64, frame.image_px.1 as f64);
            let parts = boxes.iter().map(|found| {
                let rect = found.rect;
                json!({
                    "left": rect.left_px / width, "top": rect.top_px / height,
                    "width": rect.width_px / width, "height": rect.height_px / height,
                    "score": found.score, "class": found.class,
                })
            });
            Value::Array(parts.collect())
        }
        HeadOutput::Map { .. } | HeadOutput::Mask { .. } | HeadOutput::Colours { .. } => return None,
    };
    Some(json!({ "kind": output.kind(), "value": value }))
}

/// similarities: `[rows, cols]`
pub(crate) fn similarity(camera: usize, frame: &ViewFrame, similarities: &[f32]) -> Bytes {
    let mut bytes = message(Kind::Similarity, Dtype::F32, camera, frame, 1, 4 * similarities.len());
    similarities.iter().for_each(|value| bytes.put_f32_le(*value));
    bytes.freeze()
}

pub(crate) fn features_f32(camera: usize, frame: &ViewFrame) -> Bytes {
    let mut bytes = message(Kind::Features, Dtype::F32, camera, frame, frame.dim, 4 * frame.patches.len());
    frame.patches.iter().for_each(|value| bytes.put_f32_le(*value));
    bytes.freeze()
}

/// Rounded to nearest; values beyond f16 become infinite.
pub(crate) fn features_f16(camera: usize, frame: &ViewFrame) -> Bytes {
    let mut bytes = message(Kind::Features, Dtype::F16, camera, frame, frame.dim, 2 * frame.patches.len());
    frame.patches.iter().for_each(|value| bytes.put_u16_le(f16::from_f32(*value).to_bits()));
    bytes.freeze()
}
