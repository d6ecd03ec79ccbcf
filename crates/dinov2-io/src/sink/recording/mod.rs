//! Recordings: camera images, their features and statistics in one MCAP file with ROS 2 messages.
//!
//! `docs/recordings.md` describes the topics and messages. Nothing is compressed beyond JPEG and PNG: features in f16 give
//! a compressor next to nothing to find.

mod features;
mod file;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use dinov2_core::{Features, HeadOutput};
use mcap::records::Metadata;

pub use features::FeatureNumbers;

use super::SinkError;
use super::arrays::{Values, array_of};
use super::picture::write_png;
use crate::recording::{
    COMPRESSED_IMAGE, CompressedImage, FEATURE_MAP, FeatureMap, HEAD_VALUES, HeadValues, Header, IMAGE_TYPE,
    Image, LIVE_STATS, LiveStatsMessage, MessageType, OWN_TOPICS, Time, cdr_from_message,
};
use crate::{Crop, Frame, JpegEncoder, LiveStats};
use features::encode;
use file::RecordingFile;

/// Quality of the camera images: what cameras themselves use, far beyond what the features notice.
const JPEG_QUALITY: u8 = 90;
/// Name of the metadata record.
const METADATA: &str = "dinov2_edge";

/// What a recording says about itself, besides what its messages say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordingMeta {
    /// Name of the architecture, such as `ViT-S/14`.
    pub model: String,
    /// File or label of the model.
    pub model_file: String,
    /// Identity of the model among those of the same name, for example its SHA-256. May be empty.
    pub model_identity: String,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Engine, such as `cpu`.
    pub engine: String,
    /// Precision, such as `f32`.
    pub precision: String,
    /// Number of cameras: one writes `/camera/…` and `/dinov2/…`, several `/camera0/…` and `/dinov2/camera0/…`.
    pub cameras: usize,
    /// How features are stored.
    pub features: FeatureNumbers,
    /// Anything else, by key.
    pub extra: Vec<(String, String)>,
}

/// One frame to be recorded.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// Which camera, from 0.
    pub camera: usize,
    /// The whole frame. Its `capture_ns` becomes the stamp of its messages; without one, the time of writing does.
    pub frame: &'a Frame,
    /// The frame as a JPEG, where someone has encoded it already.
    pub jpeg: Option<&'a [u8]>,
    /// The part of the frame under the grid: [`crate::Fit::crop`].
    pub crop: Crop,
    /// What the engine made of it.
    pub features: &'a Features,
    /// What heads made of the features, by name.
    pub outputs: &'a [(&'a str, &'a HeadOutput)],
    /// From capture to features, in milliseconds.
    pub latency_ms: Option<f32>,
}

/// Channels of one camera.
#[derive(Clone, Debug)]
struct Camera {
    frame_id: String,
    /// Beginning of its topics of ours.
    own: String,
    image: u16,
    features: u16,
    /// By output; announced when the output first comes.
    outputs: Vec<(String, u16)>,
}

/// Writes a recording.
///
/// What [`Self::write`] took reaches the system within half a second, on a thread of the recording's own, so that a
/// process that is killed loses no more than that. After an error the file holds what was recorded before it.
#[derive(Debug)]
pub struct Recording {
    file: RecordingFile,
    meta: RecordingMeta,
    cameras: Vec<Camera>,
    stats: u16,
    sequence: u32,
    jpeg: JpegEncoder,
    encoded: Vec<u8>,
    message: Vec<u8>,
}

impl Recording {
    /// Creates the file.
    ///
    /// # Errors
    /// A file that exists, which is never overwritten; a folder that does not; what the system refuses.
    ///
    /// # Panics
    /// If there are no cameras, or more than 1,000.
    pub fn create(path: &Path, meta: &RecordingMeta) -> Result<Self, SinkError> {
        assert!((1..=1000).contains(&meta.cameras), "cameras: expected 1..=1000, got {}", meta.cameras);
        let mut file = RecordingFile::create(path, &metadata(meta))?;
        let mut cameras = Vec::new();
        for index in 0..meta.cameras {
            let alone = meta.cameras == 1;
            let frame_id = if alone { "camera".to_string() } else { format!("camera{index}") };
            let own = if alone { OWN_TOPICS.to_string() } else { format!("{OWN_TOPICS}{frame_id}/") };
            let mut channel = |topic: String, kind: &MessageType| file.add_channel(&topic, kind);
            cameras.push(Camera {
                image: channel(format!("/{frame_id}/image/compressed"), &COMPRESSED_IMAGE)?,
                features: channel(format!("{own}features"), &FEATURE_MAP)?,
                outputs: Vec::new(),
                own,
                frame_id,
            });
        }
        let stats = file.add_channel(&format!("{OWN_TOPICS}stats"), &LIVE_STATS)?;
        let jpeg = JpegEncoder::new(JPEG_QUALITY);
        let (encoded, message) = (Vec::new(), Vec::new());
        Ok(Self { file, meta: meta.clone(), cameras, stats, sequence: 0, jpeg, encoded, message })
    }

    /// Writes the messages of one frame: image, outputs of heads, features, in this order. All have the same log
    /// time, that of writing, and the same stamp.
    ///
    /// # Errors
    /// What the system refuses, now or since the last call: a full disk. Every later call is refused.
    ///
    /// # Panics
    /// If the camera is not one of those announced, or the frame has no pixels.
    pub fn write(&mut self, recorded: &Recorded<'_>) -> Result<(), SinkError> {
        let Recorded { frame, features, .. } = *recorded;
        let camera = &self.cameras[recorded.camera];
        let now_ns = unix_ns();
        let stamp = Time::from_ns(frame.capture_ns.unwrap_or(now_ns));
        let header = Header { stamp, frame_id: camera.frame_id.clone() };
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;

        let data = match recorded.jpeg {
            Some(jpeg) => jpeg,
            None => self.jpeg.encode(frame.view()).expect("frames within the limits fit a JPEG"),
        };
        let image = CompressedImage { header: header.clone(), format: "jpeg".into(), data };
        cdr_from_message(&image, &mut self.message);
        self.file.write(camera.image, sequence, now_ns, &self.message)?;

        for (name, output) in recorded.outputs {
            self.write_output(recorded.camera, name, output, &header, now_ns)?;
        }
        let camera = &self.cameras[recorded.camera];

        let scale = encode(self.meta.features, features.patches(), &mut self.encoded);
        let map = feature_map(recorded, &self.meta, header, scale, &self.encoded);
        cdr_from_message(&map, &mut self.message);
        self.file.write(camera.features, sequence, now_ns, &self.message)?;
        // The topics are known to readers from the first frame on.
        if self.sequence == 1 { self.file.flush() } else { Ok(()) }
    }

    /// Writes what a head made of a frame: colours as PNG, maps and masks as images, everything else as numbers.
    fn write_output(
        &mut self,
        camera: usize,
        name: &str,
        output: &HeadOutput,
        header: &Header,
        now_ns: u64,
    ) -> Result<(), SinkError> {
        let Self { file, cameras, encoded, message, sequence, .. } = self;
        let Camera { own, outputs, .. } = &mut cameras[camera];
        let (shape, values) = array_of(output);
        encoded.clear();
        let header = header.clone();
        // What a topic's name cannot hold becomes a level of it.
        let topic = format!("{own}{}", name.replace('.', "/"));
        let (topic, kind) = match output {
            HeadOutput::Colours { grid, rgb } => {
                write_png(encoded, rgb, short(grid.cols), short(grid.rows), None)
                    .expect("writing into memory succeeds");
                cdr_from_message(&CompressedImage { header, format: "png".into(), data: encoded }, message);
                (format!("{topic}/compressed"), &COMPRESSED_IMAGE)
            }
            HeadOutput::Map { grid, .. } | HeadOutput::Mask { grid, .. } => {
                values.write(encoded).expect("writing into memory succeeds");
                let (encoding, bytes) =
                    if matches!(values, Values::F32(_)) { ("32FC1", 4) } else { ("mono8", 1) };
                let (height, width) = (short(grid.rows), short(grid.cols));
                let image = Image {
                    header,
                    height,
                    width,
                    encoding: encoding.into(),
                    is_bigendian: 0,
                    step: width * bytes,
                    data: encoded,
                };
                cdr_from_message(&image, message);
                (topic, &IMAGE_TYPE)
            }
            HeadOutput::Boxes(_) | HeadOutput::Vector(_) | HeadOutput::Score(_) => {
                let Values::F32(data) = &values else { unreachable!("bytes are images") };
                let shape = shape.into_iter().map(short).collect();
                cdr_from_message(&HeadValues { header, kind: output.kind(), shape, data }, message);
                (topic, &HEAD_VALUES)
            }
        };
        let channel = match outputs.iter().find(|(known, _)| known == name) {
            Some((_, channel)) => *channel,
            None => {
                let channel = file.add_channel(&topic, kind)?;
                outputs.push((name.into(), channel));
                channel
            }
        };
        file.write(channel, *sequence, now_ns, message)
    }

    /// Writes how the run is doing at the moment `unix_ns`, in nanoseconds since 1970.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_stats(&mut self, stats: &LiveStats, unix_ns: u64) -> Result<(), SinkError> {
        cdr_from_message(&LiveStatsMessage::new(stats, unix_ns), &mut self.message);
        self.file.write(self.stats, 0, unix_ns, &self.message)
    }

    /// Writes the index and the end. Dropping a recording finishes it too, but ignores errors.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn finish(self) -> Result<(), SinkError> {
        self.file.finish()
    }
}

fn feature_map<'a>(
    recorded: &Recorded<'a>,
    meta: &'a RecordingMeta,
    header: Header,
    scale: f32,
    data: &'a [u8],
) -> FeatureMap<'a> {
    let Recorded { frame, crop, features, .. } = *recorded;
    let grid = features.grid();
    FeatureMap {
        header,
        rows: short(grid.rows),
        cols: short(grid.cols),
        dim: short(features.dim()),
        dtype: meta.features.name(),
        scale,
        patch_size: short(meta.patch_size),
        model: &meta.model,
        image_width: short(frame.width_px),
        image_height: short(frame.height_px),
        crop_left: short(crop.left_px),
        crop_top: short(crop.top_px),
        crop_width: short(crop.width_px),
        crop_height: short(crop.height_px),
        latency_ms: recorded.latency_ms.unwrap_or(f32::NAN),
        cls: features.cls(),
        data,
    }
}

fn short(value: usize) -> u32 {
    u32::try_from(value).expect("sides and widths are within the limits")
}

fn metadata(meta: &RecordingMeta) -> Metadata {
    let mut facts: BTreeMap<String, String> = meta.extra.iter().cloned().collect();
    let mut tell = |key: &str, value: &str| facts.insert(key.to_string(), value.to_string());
    tell("format", "dinov2-edge recording 1");
    tell("model", &meta.model);
    tell("model_file", &meta.model_file);
    tell("model_identity", &meta.model_identity);
    tell("patch_size_px", &meta.patch_size.to_string());
    tell("engine", &meta.engine);
    tell("precision", &meta.precision);
    tell("features", meta.features.name());
    Metadata { name: METADATA.to_string(), metadata: facts }
}

/// Zero if the clock is before 1970.
fn unix_ns() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
