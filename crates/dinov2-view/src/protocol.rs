//! What goes over `/ws`; documented for its users in `docs/live-page.md`.

use bytes::{BufMut, Bytes, BytesMut};
use dinov2_core::{HeadOutput, PatchGrid};
use dinov2_heads::{PcaCommand, PcaFit};
use dinov2_io::LiveStats;
use half::f16;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::feed::Shot;

/// First bytes of every binary message.
pub const MAGIC: [u8; 4] = *b"DV2V";
/// Version of the protocol, in the fifth byte of every binary message and in `hello`.
pub const VERSION: u8 = 1;
/// Length of the header of a binary message.
pub const HEADER_BYTES: usize = 48;

/// Bit of the flags that says that the capture time is known.
const CAPTURE_KNOWN: u8 = 1;

/// What a binary message carries.
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
    /// An output of a head that is a grid: its name (u8 length and UTF-8), then f32 or u8 `[rows, cols, dim]`; dim is 3 for colours.
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

/// What a client may send: an object with one of these keys.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wish {
    Pick(Point),
    /// A feature `[dim]` to compare with, such as one that `picked` told.
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

/// What comes with every frame to those who subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Topic {
    /// Features in f32.
    Features,
    /// Features in f16.
    FeaturesF16,
    /// The camera's picture and the colours of its patches.
    Pictures,
    /// What other heads than `pca` made of the frame.
    Outputs,
}

/// What the server says in text.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Answer<'a> {
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
    /// Outputs of heads that are no grids: by name the kind and its value.
    Outputs {
        camera: usize,
        frame: u64,
        outputs: Map<String, Value>,
    },
    Error {
        message: String,
    },
}

impl Answer<'_> {
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("plain data with text keys")
    }
}

/// Reads a client's message.
///
/// # Errors
/// What is wrong with it, for the client.
pub(crate) fn parse_wish(text: &str) -> Result<Wish, String> {
    let wish = serde_json::from_str(text).map_err(|error| format!("message: {error}"))?;
    match wish {
        Wish::Pick(Point { x, y }) if !(0.0..=1.0).contains(&x) || !(0.0..=1.0).contains(&y) => {
            Err(format!("pick: expected x and y in 0..=1, got {x} and {y}"))
        }
        Wish::Query(feature) if !feature.iter().all(|value| value.is_finite()) => {
            Err(String::from("query: expected finite numbers"))
        }
        Wish::Unpick(false) => Err(String::from("unpick: expected true")),
        wish => Ok(wish),
    }
}

/// A header, with room for `payload` bytes behind it. dim: values per patch.
fn message(kind: Kind, dtype: Dtype, camera: usize, shot: &Shot, dim: usize, payload: usize) -> BytesMut {
    message_of_grid(kind, dtype, camera, shot, (shot.grid, dim), payload)
}

/// As [`message`], of a grid that need not be the patches'.
fn message_of_grid(
    kind: Kind,
    dtype: Dtype,
    camera: usize,
    shot: &Shot,
    (grid, dim): (PatchGrid, usize),
    payload: usize,
) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + payload);
    bytes.put_slice(&MAGIC);
    let flags = if shot.capture_ns.is_some() { CAPTURE_KNOWN } else { 0 };
    bytes.put_slice(&[VERSION, kind as u8, dtype as u8, flags]);
    // No limit of ours lets a camera, a side or a width leave 32 bits.
    for number in [camera, grid.rows, grid.cols, dim] {
        bytes.put_u32_le(number as u32);
    }
    bytes.put_u64_le(shot.index);
    bytes.put_u64_le(shot.capture_ns.unwrap_or(0));
    bytes.put_f64_le(shot.latency_ms);
    debug_assert_eq!(bytes.len(), HEADER_BYTES);
    bytes
}

pub(crate) fn picture(camera: usize, shot: &Shot, jpeg: &[u8]) -> Bytes {
    let mut bytes = message(Kind::Picture, Dtype::Jpeg, camera, shot, 0, jpeg.len());
    bytes.put_slice(jpeg);
    bytes.freeze()
}

pub(crate) fn colours(camera: usize, shot: &Shot) -> Bytes {
    let mut bytes = message(Kind::Colours, Dtype::U8, camera, shot, 3, shot.colours.len());
    bytes.put_slice(&shot.colours);
    bytes.freeze()
}

/// The output of a head, if it is a grid: [`Kind::Output`].
pub(crate) fn output(camera: usize, shot: &Shot, name: &str, output: &HeadOutput) -> Option<Bytes> {
    let (grid, dtype, dim, values) = match output {
        HeadOutput::Map { grid, values } => (grid, Dtype::F32, 1, f32_bytes(values)),
        HeadOutput::Mask { grid, classes } => (grid, Dtype::U8, 1, classes.clone()),
        HeadOutput::Colours { grid, rgb } => (grid, Dtype::U8, 3, rgb.clone()),
        HeadOutput::Boxes(_) | HeadOutput::Vector(_) | HeadOutput::Score(_) => return None,
    };
    // Names are those of heads and their parts: short.
    let name = &name.as_bytes()[..name.len().min(255)];
    let mut bytes =
        message_of_grid(Kind::Output, dtype, camera, shot, (*grid, dim), 1 + name.len() + values.len());
    bytes.put_u8(name.len() as u8);
    bytes.put_slice(name);
    bytes.put_slice(&values);
    Some(bytes.freeze())
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An output of a head that is no grid: `{"kind": KIND, "value": VALUE}`. Boxes are objects with left, top, width and height in parts of the
/// picture, score and class.
pub(crate) fn output_json(shot: &Shot, output: &HeadOutput) -> Option<Value> {
    let value = match output {
        HeadOutput::Score(value) => json!(value),
        HeadOutput::Vector(values) => json!(values),
        HeadOutput::Boxes(boxes) => {
            let (width, height) = (shot.image_px.0 as f64, shot.image_px.1 as f64);
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
pub(crate) fn similarity(camera: usize, shot: &Shot, similarities: &[f32]) -> Bytes {
    let mut bytes = message(Kind::Similarity, Dtype::F32, camera, shot, 1, 4 * similarities.len());
    similarities.iter().for_each(|value| bytes.put_f32_le(*value));
    bytes.freeze()
}

pub(crate) fn features_f32(camera: usize, shot: &Shot) -> Bytes {
    let mut bytes = message(Kind::Features, Dtype::F32, camera, shot, shot.dim, 4 * shot.patches.len());
    shot.patches.iter().for_each(|value| bytes.put_f32_le(*value));
    bytes.freeze()
}

/// Rounded to the nearest; what is too large becomes infinite.
pub(crate) fn features_f16(camera: usize, shot: &Shot) -> Bytes {
    let mut bytes = message(Kind::Features, Dtype::F16, camera, shot, shot.dim, 2 * shot.patches.len());
    shot.patches.iter().for_each(|value| bytes.put_u16_le(f16::from_f32(*value).to_bits()));
    bytes.freeze()
}
