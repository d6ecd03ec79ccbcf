//! What lies inside of the network: an earlier layer, the keys of a block, and where the CLS token looks, drawn as text.
//!
//!     cargo run --release -p dinov2-edge --example taps [IMAGE]

use anyhow::Context;
use dinov2_edge::io::Size;
use dinov2_edge::{EngineConfig, Extractor, Facet, Features, ImageExtractor, SelectedEngine, Tap, Taps};

const SHADES: [char; 5] = [' ', '.', 'o', 'O', '@'];

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "examples/media/cat.jpg".into());
    let engine = SelectedEngine::open(&dinov2_bundled::bundled_model()?.into(), EngineConfig::default())?;
    let heads = engine.spec().heads;
    let mut extractor = ImageExtractor::new(engine, Size::Short(280))?;

    // Layers count from 0. As text: Taps::parse("5:norm,10:key,cls-attention", depth).
    let layer = Tap::Layer { layer: 5, norm: true };
    let keys = Tap::Facet { layer: 10, facet: Facet::Key };
    let mut features = Features::new();
    extractor.extract_file(&path, &Taps::new([layer, keys, Tap::ClsAttention]), &mut features)?;
    for (tap, values) in features.taps() {
        println!("{tap}: {} values", values.len());
    }

    let attention = features.tap(Tap::ClsAttention).context("a tap that was asked for")?; // [heads, n]
    let (grid, tokens) = (features.grid(), attention.len() / heads);
    // The patches are the last tokens of each head.
    let of_patch = |patch: usize| -> f32 {
        attention.chunks_exact(tokens).map(|head| head[tokens - grid.len() + patch]).sum()
    };
    let most = (0..grid.len()).map(of_patch).fold(f32::MIN, f32::max);
    for row in 0..grid.rows {
        let shade = |col| SHADES[(of_patch(row * grid.cols + col) / most * 4.0).round() as usize];
        println!("{}", (0..grid.cols).map(shade).collect::<String>());
    }
    Ok(())
}
