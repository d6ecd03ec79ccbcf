//! What goes over `/ws`; documented for its users in `docs/live-page.md`.

use bytes::{BufMut, Bytes, BytesMut};
use dinov2_io::LiveStats;
use half::f16;
use serde::{Deserialize, Serialize};

use crate::feed::Shot;
use crate::{PcaMode, PcaRequest};

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
    Pca(PcaRequest),
}

/// A point of the picture, 0..=1 from the top left.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
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
}

/// What the server says in text.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Answer<'a> {
    Hello { version: u8, title: &'a str, model: &'a str, cameras: &'a [String], camera: usize, pca: PcaMode },
    Stats { stats: &'a LiveStats, clients: usize, pca: PcaMode, trouble: Option<String> },
    Grid { camera: usize, rows: usize, cols: usize, dim: usize, width_px: usize, height_px: usize },
    Picked { camera: usize, frame: u64, row: usize, col: usize, feature: &'a [f32] },
    Queried { camera: usize, frame: u64 },
    Unpicked,
    Subscribed { topic: Topic },
    Unsubscribed { topic: Topic },
    Pca { asked: PcaRequest },
    Error { message: String },
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
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + payload);
    bytes.put_slice(&MAGIC);
    let flags = if shot.capture_ns.is_some() { CAPTURE_KNOWN } else { 0 };
    bytes.put_slice(&[VERSION, kind as u8, dtype as u8, flags]);
    // No limit of ours lets a camera, a side or a width leave 32 bits.
    for number in [camera, shot.grid.rows, shot.grid.cols, dim] {
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
