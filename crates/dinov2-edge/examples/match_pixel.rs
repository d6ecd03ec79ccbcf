//! Finds in one photograph what lies at a pixel of another: prints pixel, size of the patch and cosine similarity.
//!
//!     cargo run --release -p dinov2-edge --example match_pixel -- examples/media/cat.jpg 200 120 examples/media/cat.jpg

use std::path::Path;

use dinov2_edge::heads::similarity_map;
use dinov2_edge::io::{Frame, Size, read_still};
use dinov2_edge::{EngineConfig, Features, ImageExtractor, SelectedEngine, Taps};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [left, x, y, right] = &words[..] else { return Err("expected LEFT X Y RIGHT".into()) };
    let (x, y): (u32, u32) = (x.parse()?, y.parse()?);

    let engine = SelectedEngine::open(&dinov2_bundled::bundled_model()?.into(), EngineConfig::default())?;
    let mut extractor = ImageExtractor::new(engine, Size::Short(448))?;
    let (mut frame, mut features) = (Frame::new(), Features::new());

    read_still(Path::new(left), &mut frame)?;
    let geometry = extractor.extract(frame.view(), &Taps::none(), &mut features)?;
    // The centre of the pixel.
    let picked = geometry.patch_at(f64::from(x) + 0.5, f64::from(y) + 0.5);
    let picked =
        picked.ok_or_else(|| format!("pixel: expected within {}x{}", frame.width_px, frame.height_px))?;
    let query = features.patch(picked.row, picked.col).to_vec();

    read_still(Path::new(right), &mut frame)?;
    let geometry = extractor.extract(frame.view(), &Taps::none(), &mut features)?;
    let mut similarities = Vec::new(); // [rows, cols]
    similarity_map(features.patches(), &query, &mut similarities)?;
    let best = (0..similarities.len()).max_by(|&a, &b| similarities[a].total_cmp(&similarities[b]));
    let best = best.ok_or("no patches")?;
    let patch = geometry.grid().patch(best);
    let rect = geometry.rect(patch.row, patch.col);
    let centre = rect.centre();
    println!(
        "{:.1} {:.1} of a patch of {:.1}x{:.1}: {:.3}",
        centre.x_px, centre.y_px, rect.width_px, rect.height_px, similarities[best]
    );
    Ok(())
}
