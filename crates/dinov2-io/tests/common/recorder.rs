//! Something to record: frames that tell their number, with features made of it.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part

use dinov2_core::{Features, HeadOutput, MlpKind, PatchGrid, PositionConvention, Taps, VitSpec};
use dinov2_io::{Crop, FeatureNumbers, Frame, Recorded, Recording, RecordingMeta, SinkError};

pub const GRID: PatchGrid = PatchGrid { rows: 2, cols: 3 };
/// Capture time of the first frame; the others follow at 40 ms.
pub const START_NS: u64 = 1_700_000_000_123_456_789;

pub fn meta(cameras: usize) -> RecordingMeta {
    RecordingMeta {
        model: "ViT-S/14".into(),
        model_file: "vits14.safetensors".into(),
        model_identity: "0123".into(),
        patch_size: 14,
        engine: "cpu".into(),
        precision: "int8".into(),
        cameras,
        features: FeatureNumbers::F16,
        extra: vec![("robot".into(), "no. 7".into())],
    }
}

/// `width_px` x `height_px`, grey, the brighter the later; smooth enough for JPEG.
pub fn frame(index: u64, width_px: usize, height_px: usize) -> Frame {
    let level = (index * 10 % 200) as u8 + 20;
    Frame {
        pixels: vec![level; width_px * height_px * 3],
        width_px,
        height_px,
        capture_ns: Some(START_NS + index * 40_000_000),
        ..Frame::default()
    }
}

/// [2, 3, 4] and the class token before it: 0, 1, 2, … plus `index`.
pub fn features(index: u64) -> Features {
    let spec = VitSpec {
        dim: 4,
        depth: 1,
        heads: 1,
        patch_size: 14,
        registers: 0,
        mlp: MlpKind::Gelu,
        mlp_hidden: 16,
        layer_scale: false,
        norm_eps: 1e-6,
        position_table: GRID,
        position_convention: PositionConvention::ExactSize,
    };
    let mut features = Features::new();
    features.prepare(&spec, GRID, &Taps::none());
    for (value, token) in (index..).zip(features.tokens_mut()) {
        *token = value as f32;
    }
    features
}

pub fn record(recording: &mut Recording, camera: usize, index: u64, frame: &Frame) -> Result<(), SinkError> {
    let crop = Crop { left_px: 1, top_px: 0, width_px: frame.width_px - 2, height_px: frame.height_px };
    let colours: Vec<u8> = (0..18).map(|value| value * 14).collect();
    recording.write(&Recorded {
        camera,
        frame,
        jpeg: None,
        crop,
        features: &features(index),
        outputs: &[("pca", &HeadOutput::Colours { grid: GRID, rgb: colours })],
        latency_ms: Some(7.5),
    })
}
