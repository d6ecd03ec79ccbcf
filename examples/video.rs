//! Frames of a video with their times, and how much each differs from the frame before it.
//!
//!     cargo run --release -p dinov2-edge --example video [VIDEO]
//!
//! y4m and MJPEG are read by the library, other videos by the program `ffmpeg`. MJPEG files have no times.

use dinov2_edge::heads::similarity_map;
use dinov2_edge::io::{Frame, Size, SourceOptions, open};
use dinov2_edge::{EngineConfig, Features, ImageExtractor, SelectedEngine, Taps};

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "examples/media/cat.mjpeg".into());
    let engine = SelectedEngine::open(&dinov2_bundled::bundled_model()?.into(), EngineConfig::default())?;
    let mut extractor = ImageExtractor::new(engine, Size::Short(224))?;

    let mut source = open(&[path], &SourceOptions::default())?;
    let (mut frame, mut features) = (Frame::new(), Features::new()); // reused from frame to frame
    let (mut previous, mut similarity) = (Vec::new(), Vec::new());
    while source.next_frame(&mut frame)? {
        extractor.extract(frame.view(), &Taps::none(), &mut features)?;
        if previous.is_empty() {
            previous.extend_from_slice(features.cls());
        }
        similarity_map(features.cls(), &previous, &mut similarity)?;
        previous.copy_from_slice(features.cls());
        let time = frame.capture_ns.map_or("-".into(), |ns| format!("{:.3} s", ns as f64 / 1e9));
        println!("{}  {time:>9}  cosine to the frame before {:.4}", frame.name, similarity[0]);
    }
    source.take_notes().iter().for_each(|note| eprintln!("{note}"));
    Ok(())
}
