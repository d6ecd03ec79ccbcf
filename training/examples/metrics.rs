//! Writes the metrics of a simulated run that is killed and resumed, for `tests/check_events.py`.
//!
//!     cargo run -p training --example metrics -- FOLDER

use std::path::Path;

use dinov2_core::{ImageView, PatchGrid};
use training::metrics::{Metrics, PatchFeatures, SheetRow, contact_sheet};
use training::progress::RunProgress;

const GRID: PatchGrid = PatchGrid { rows: 6, cols: 8 };
const STEPS: u64 = 40;
const SHEET_EVERY: u64 = 10;

/// A contact sheet whose student differs from its teacher by the step.
fn sheet(step: u64) -> anyhow::Result<Vec<u8>> {
    let (width_px, height_px) = (8 * 14, 6 * 14);
    let pixels: Vec<u8> = (0..width_px * height_px * 3).map(|index| (index % 255) as u8).collect();
    let image = ImageView::new(&pixels, width_px, height_px)?;
    let wave = |index: usize, shift: u64| ((index * 37 % 101) as f32 + shift as f32).sin();
    let teacher: Vec<f32> = (0..GRID.len() * 16).map(|index| wave(index, 0)).collect();
    let student: Vec<f32> = (0..GRID.len() * 16).map(|index| wave(index, STEPS - step)).collect();
    let features = |patches| PatchFeatures { grid: GRID, dim: 16, patches };
    let row = SheetRow { image, teacher: features(&teacher), student: features(&student) };
    Ok(contact_sheet(&[row, row])?)
}

fn train(folder: &Path, resume_step: Option<u64>, last: u64) -> anyhow::Result<()> {
    let mut metrics = Metrics::create(folder, resume_step)?;
    let first = resume_step.unwrap_or(0);
    let mut progress = RunProgress::new(STEPS, first);
    for step in first + 1..=last {
        let loss = (-(step as f64) / 10.0).exp();
        metrics.scalar(step, "loss/patch", loss)?;
        metrics.scalar(step, "learning_rate", 1e-4 * step as f64)?;
        if step % SHEET_EVERY == 0 {
            metrics.image(step, "pca", &sheet(step)?)?;
        }
        metrics.flush(step)?;
        progress.step(step, Some(loss), 64);
    }
    progress.finish();
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else { anyhow::bail!("expected FOLDER") };
    let folder = Path::new(&folder);
    train(folder, None, 30)?;
    train(folder, Some(20), STEPS)
}
