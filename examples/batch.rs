//! Several photographs in one batch: the features are those of one after the other, bit for bit.
//!
//!     cargo run --release -p dinov2-edge --example batch [IMAGE...]

use std::path::Path;

use dinov2_edge::io::{Fit, Frame, Size, read_still};
use dinov2_edge::{EngineConfig, Extractor, Features, ImageView, SelectedEngine, Taps};

fn main() -> anyhow::Result<()> {
    let mut paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        paths = ["cat", "coffee", "rocket"].map(|name| format!("examples/media/{name}.jpg")).into();
    }
    let mut engine = SelectedEngine::open(&dinov2_bundled::bundled_model()?.into(), EngineConfig::default())?;

    // One size for all: engines run images of one patch grid together. Sizes may differ, though.
    let size = Size::Exact { width_px: 308, height_px: 224 };
    let (mut fit, mut frame) = (Fit::new(size, engine.spec().patch_size)?, Frame::new());
    let mut fitted = Vec::new(); // RGB, [224, 308, 3] each
    for path in &paths {
        read_still(Path::new(path), &mut frame)?;
        fitted.push(fit.fit(frame.view())?.pixels().to_vec());
    }
    let images =
        fitted.iter().map(|pixels| ImageView::new(pixels, 308, 224)).collect::<Result<Vec<_>, _>>()?;

    let mut features = vec![Features::new(); images.len()];
    engine.extract_batch(&images, &Taps::none(), &mut features)?;
    for (path, features) in paths.iter().zip(&features) {
        println!("{path}: {} patches, CLS token {:.3?} ...", features.grid().len(), &features.cls()[..3]);
    }
    Ok(())
}
