//! Recordings: camera images, their features and statistics in one MCAP file with ROS 2 messages.
//!
//! `docs/recordings.md` describes the topics and messages. Nothing is compressed beyond JPEG and PNG: features in f16 give
//! a compressor next to nothing to find.

mod features;
mod file;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use dinov2_core::Features;
use mcap::records::Metadata;

pub use features::FeatureNumbers;

use super::picture::write_png;
use super::{RgbGrid, SinkError};
use crate::recording::{
    COMPRESSED_IMAGE, CompressedImage, FEATURE_MAP, FeatureMap, Header, LIVE_STATS, LiveStatsMessage,
    MessageType, OWN_TOPICS, Time, cdr_from_message,
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
    /// A picture of the features.
    pub pca: Option<RgbGrid<'a>>,
    /// From capture to features, in milliseconds.
    pub latency_ms: Option<f32>,
}

/// Channels of one camera.
#[derive(Clone, Debug)]
struct Camera {
    frame_id: String,
    image: u16,
    pca: u16,
    features: u16,
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
                pca: channel(format!("{own}pca/compressed"), &COMPRESSED_IMAGE)?,
                features: channel(format!("{own}features"), &FEATURE_MAP)?,
                frame_id,
            });
        }
        let stats = file.add_channel(&format!("{OWN_TOPICS}stats"), &LIVE_STATS)?;
        let jpeg = JpegEncoder::new(JPEG_QUALITY);
        let (encoded, message) = (Vec::new(), Vec::new());
        Ok(Self { file, meta: meta.clone(), cameras, stats, sequence: 0, jpeg, encoded, message })
    }

    /// Writes the messages of one frame: image, picture of the features, features, in this order. All have the same log
    /// time, that of writing, and the same stamp.
    ///
    /// # Errors
    /// What the system refuses, now or since the last call: a full disk. Every later call is refused.
    ///
    /// # Panics
    /// If the camera is not one of those announced, the frame has no pixels, or the picture is not of the features' grid.
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

        if let Some(pca) = recorded.pca {
            let grid = features.grid();
            assert_eq!(pca.pixels.len(), grid.len() * 3, "picture: expected {grid} pixels of RGB");
            self.encoded.clear();
            write_png(&mut self.encoded, pca.pixels, short(grid.cols), short(grid.rows), None)
                .expect("writing into memory succeeds");
            let image = CompressedImage { header: header.clone(), format: "png".into(), data: &self.encoded };
            cdr_from_message(&image, &mut self.message);
            self.file.write(camera.pca, sequence, now_ns, &self.message)?;
        }

        let scale = encode(self.meta.features, features.patches(), &mut self.encoded);
        let map = feature_map(recorded, &self.meta, header, scale, &self.encoded);
        cdr_from_message(&map, &mut self.message);
        self.file.write(camera.features, sequence, now_ns, &self.message)?;
        // The topics are known to readers from the first frame on.
        if self.sequence == 1 { self.file.flush() } else { Ok(()) }
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
