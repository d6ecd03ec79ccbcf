//! Records images with made-up features, for `tests/check_recording.py` and for timing.
//!
//!     cargo run --release -p dinov2-io --features mcap --example record -- OUT.mcap FOLDER INPUT…
//!
//! FOLDER gets the same features as `.safetensors`, a file per frame, for comparison.

use std::path::Path;
use std::time::{Duration, Instant};

use dinov2_core::{Features, HeadOutput, ImageView, MlpKind, PatchGrid, PositionConvention, Taps, VitSpec};
use dinov2_io::{
    FeatureMeta, FeatureNumbers, Fit, Frame, LiveStats, Output, Recorded, Recording, RecordingMeta, Size,
    SourceOptions, open,
};

const SPEC: VitSpec = VitSpec {
    dim: 384,
    depth: 1,
    heads: 1,
    patch_size: 14,
    registers: 0,
    mlp: MlpKind::Gelu,
    mlp_hidden: 4,
    layer_scale: false,
    norm_eps: 1e-6,
    position_table: PatchGrid { rows: 1, cols: 1 },
    position_convention: PositionConvention::ExactSize,
};

/// Numbers of the size of real features that differ everywhere and depend on the image.
fn extract(image: ImageView<'_>, features: &mut Features) {
    let grid = PatchGrid { rows: image.height_px() / 14, cols: image.width_px() / 14 };
    features.prepare(&SPEC, grid, &Taps::none());
    let pixels = image.pixels();
    for (index, value) in features.tokens_mut().iter_mut().enumerate() {
        let pixel = f32::from(pixels[index * 131 % pixels.len()]) / 128.0 - 1.0;
        *value = pixel * 4.0 + (index as f32 * 0.37).sin();
    }
}

/// `[rows, cols, 3]`: the pixel in the middle of each patch.
fn picture(image: ImageView<'_>) -> Vec<u8> {
    let width = image.width_px();
    let middles = (0..image.height_px() / 14)
        .flat_map(|row| (0..width / 14).map(move |col| ((row * 14 + 7) * width + col * 14 + 7) * 3));
    middles.flat_map(|at| [0, 1, 2].map(|channel| image.pixels()[at + channel])).collect()
}

/// Processor time of this thread so far, where the system tells it.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [path, folder, inputs @ ..] = words.as_slice() else {
        return Err("usage: record OUT.mcap FOLDER INPUT…".into());
    };
    let mut source = open(inputs, &SourceOptions::default())?;
    let mut fit = Fit::new(Size::Short(224), SPEC.patch_size)?;
    let mut output = Output::from_path(format!("{folder}/"), true)?;
    let meta = RecordingMeta {
        model: "ViT-S/14".into(),
        model_file: "made-up.safetensors".into(),
        model_identity: "none".into(),
        patch_size: SPEC.patch_size,
        engine: "none".into(),
        precision: "f32".into(),
        cameras: 1,
        features: FeatureNumbers::F16,
        extra: Vec::new(),
    };
    let facts = FeatureMeta { model: meta.model.clone(), patch_size: 14, ..FeatureMeta::default() };
    let mut recording = Recording::create(Path::new(path), &meta)?;
    let (mut frame, mut features, mut frames) = (Frame::new(), Features::new(), 0);
    let (mut writing, mut slowest, mut working) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    while source.next_frame(&mut frame)? {
        let crop = fit.crop(frame.width_px, frame.height_px)?;
        let fitted = fit.fit(frame.view())?;
        extract(fitted, &mut features);
        output.write(&frame, fitted, &features, &[], &facts)?;
        let pca = HeadOutput::Colours { grid: features.grid(), rgb: picture(fitted) };
        let (started, worked) = (Instant::now(), processor_time());
        recording.write(&Recorded {
            camera: 0,
            frame: &frame,
            jpeg: None,
            crop,
            features: &features,
            outputs: &[("pca", &pca)],
            latency_ms: Some(12.5),
        })?;
        let took = started.elapsed();
        writing += took;
        working += processor_time().zip(worked).map_or(took, |(after, before)| after - before);
        slowest = slowest.max(took);
        frames += 1;
    }
    let stats =
        LiveStats { frames, fps: 29.5, uptime_s: 2.5, throttled: Some(false), ..LiveStats::default() };
    recording.write_stats(&stats, 1_700_000_000_250_000_000)?;
    recording.finish()?;
    let bytes = std::fs::metadata(path)?.len();
    let mean_ms = |time: Duration| time.as_secs_f64() * 1e3 / frames.max(1) as f64;
    let (size, wall_ms, busy_ms) = (bytes / frames.max(1), mean_ms(writing), mean_ms(working));
    let slowest_ms = slowest.as_secs_f64() * 1e3;
    println!(
        "{frames} frames: {size} bytes, {busy_ms:.2} ms of processor, {wall_ms:.2} ms each; the slowest {slowest_ms:.2} ms"
    );
    Ok(())
}
