//! A photograph to its features, and the feature of the patch in the middle.
//!
//!     cargo run --release -p dinov2-edge --example photo [IMAGE]

use dinov2_edge::io::Size;
use dinov2_edge::{EngineConfig, Features, ImageExtractor, SelectedEngine, Taps};

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "examples/media/cat.jpg".into());

    let model = dinov2_bundled::bundled_model()?.into(); // your own file: ModelSource::open(path)?
    let engine = SelectedEngine::open(&model, EngineConfig::default())?;
    let mut extractor = ImageExtractor::new(engine, Size::Short(448))?;
    let mut features = Features::new();
    let geometry = extractor.extract_file(&path, &Taps::none(), &mut features)?;

    let (grid, photo) = (features.grid(), geometry.crop());
    println!(
        "{path}: {} x {} pixels, {} x {} patches of {} values",
        photo.width_px,
        photo.height_px,
        grid.cols,
        grid.rows,
        features.dim()
    );
    let (row, col) = (grid.rows / 2, grid.cols / 2);
    let centre = geometry.centre(row, col);
    println!("at pixel {:.0}, {:.0}: {:.3?} ...", centre.x_px, centre.y_px, &features.patch(row, col)[..4]);
    println!("the whole image (CLS token): {:.3?} ...", &features.cls()[..4]);
    Ok(())
}
