//! A model file to ONNX for onnxruntime, TensorRT and others; with the feature `tract`, the ONNX file is run as well.
//!
//!     cargo run --release -p dinov2-edge --example onnx [OUTPUT.onnx]
//!     cargo run --release -p dinov2-edge --features tract --example onnx [OUTPUT.onnx]

use std::path::PathBuf;

use dinov2_edge::PatchGrid;
use dinov2_edge::onnx::{ExportConfig, Resolution, export};

fn main() -> anyhow::Result<()> {
    let output =
        std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("vits14.onnx"), PathBuf::from);
    let model = dinov2_bundled::bundled_model()?;
    let grid = PatchGrid::of_image(224, 224, model.spec().patch_size)?;
    let exported = export(&model, &ExportConfig::new(Resolution::Static(grid)), &output)?;
    println!("{}: {} bytes", exported.model.display(), exported.model.metadata()?.len());
    #[cfg(feature = "tract")]
    run(&exported.model)?;
    Ok(())
}

#[cfg(feature = "tract")]
fn run(path: &std::path::Path) -> anyhow::Result<()> {
    use dinov2_edge::io::Size;
    use dinov2_edge::{Engine, EngineConfig, Features, ImageExtractor, ModelSource, SelectedEngine, Taps};

    let engine = SelectedEngine::open(&ModelSource::open(path)?, EngineConfig::default())?;
    println!("{}", engine.facts());
    // A file for one grid takes this size only.
    let mut extractor = ImageExtractor::new(engine, Size::Exact { width_px: 224, height_px: 224 })?;
    let mut features = Features::new();
    extractor.extract_file("examples/media/cat.jpg", &Taps::none(), &mut features)?;
    println!("{} patches, CLS token {:.3?} ...", features.grid().len(), &features.cls()[..3]);
    Ok(())
}
