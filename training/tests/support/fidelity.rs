//! How near a student is to its teacher, on the engines that run them.

use std::path::Path;

use dinov2_core::{Extractor, Features, ImageView, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision};
use dinov2_weights::Model;
use training::data::Dataset;

/// Patch cosine between two models on the engine that runs them, over all images: median and 5th percentile.
pub(crate) fn patch_cosine(
    teacher: &Model,
    (student, precision): (&Model, CpuPrecision),
    images: &Path,
) -> (f64, f64) {
    let mut config = CpuConfig::default();
    let teacher = CpuEngine::new(teacher, config).unwrap();
    config.precision = precision;
    let mut engines = [teacher, CpuEngine::new(student, config).unwrap()];
    let dataset = Dataset::open(&[images.display().to_string()]).unwrap();
    let mut cosines = Vec::new();
    for sample in 0..dataset.len() {
        let pixels = training::views::centre_square(&dataset.decode(sample).unwrap(), 56);
        let [want, got] = engines.each_mut().map(|engine| {
            let mut features = Features::new();
            engine.extract(ImageView::new(&pixels, 56, 56).unwrap(), &Taps::none(), &mut features).unwrap();
            features
        });
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        for (got, want) in got.patches().chunks_exact(48).zip(want.patches().chunks_exact(48)) {
            cosines.push(dot(got, want) / (dot(got, got) * dot(want, want)).sqrt());
        }
    }
    cosines.sort_by(f64::total_cmp);
    (cosines[cosines.len() / 2], cosines[cosines.len() / 20])
}
