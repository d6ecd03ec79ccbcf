//! Finds in one photograph what lies at a pixel of another: prints the pixel, the size of its patch and the cosine similarity.
//!
//!     cargo run --release -p dinov2-edge --example similarity [LEFT X Y RIGHT]

use anyhow::Context;
use dinov2_edge::heads::similarity_map;
use dinov2_edge::io::Size;
use dinov2_edge::{EngineConfig, Features, ImageExtractor, SelectedEngine, Taps};

fn main() -> anyhow::Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() {
        // An eye of the cat, and the first picture of a clip that shows it closer.
        words = ["examples/media/cat.jpg", "180", "120", "examples/media/cat.mjpeg"].map(String::from).into();
    }
    let [left, x, y, right] = &words[..] else { anyhow::bail!("usage: similarity [LEFT X Y RIGHT]") };

    let engine = SelectedEngine::open(&dinov2_bundled::bundled_model()?.into(), EngineConfig::default())?;
    let mut extractor = ImageExtractor::new(engine, Size::Short(448))?;
    let mut features = Features::new();

    let geometry = extractor.extract_file(left, &Taps::none(), &mut features)?;
    // The centre of a pixel is half a pixel from its edges.
    let picked = geometry.patch_at(x.parse::<f64>()? + 0.5, y.parse::<f64>()? + 0.5);
    let picked = picked.context("the pixel lies outside of the photograph")?;
    let query = features.patch(picked.row, picked.col).to_vec();

    let geometry = extractor.extract_file(right, &Taps::none(), &mut features)?;
    let mut cosines = Vec::new(); // [rows, cols]
    similarity_map(features.patches(), &query, &mut cosines)?;
    let (best, cosine) =
        cosines.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).context("no patches")?;
    let patch = geometry.grid().patch(best);
    let rect = geometry.rect(patch.row, patch.col);
    let centre = rect.centre();
    println!(
        "pixel {:.1}, {:.1} of {right}, a patch of {:.1} x {:.1} pixels: cosine {cosine:.3}",
        centre.x_px, centre.y_px, rect.width_px, rect.height_px
    );
    Ok(())
}
