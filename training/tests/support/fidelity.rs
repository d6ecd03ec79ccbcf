//! How near a student is to its teacher, on the engines that run them.

use dinov2_core::{Extractor, Features, ImageView, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision};
use dinov2_weights::Model;
use training::data::Dataset;

/// Patch cosine between two models on the engine that runs them, over images as squares of a side: median and 5th percentile,
/// between numbers in proportion.
pub(crate) fn patch_cosine(
    teacher: &Model,
    (student, precision): (&Model, CpuPrecision),
    dataset: &Dataset,
    side_px: usize,
) -> (f64, f64) {
    let mut config = CpuConfig::default();
    let teacher = CpuEngine::new(teacher, config).unwrap();
    config.precision = precision;
    let mut engines = [teacher, CpuEngine::new(student, config).unwrap()];
    let mut cosines = Vec::new();
    for sample in 0..dataset.len() {
        let pixels = training::views::centre_square(&dataset.decode(sample).unwrap(), side_px);
        let [want, got] = engines.each_mut().map(|engine| {
            let mut features = Features::new();
            let image = ImageView::new(&pixels, side_px, side_px).unwrap();
            engine.extract(image, &Taps::none(), &mut features).unwrap();
            features
        });
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        for (got, want) in got.patches().chunks_exact(48).zip(want.patches().chunks_exact(48)) {
            cosines.push(dot(got, want) / (dot(got, got) * dot(want, want)).sqrt());
        }
    }
    cosines.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let place = share * (cosines.len() - 1) as f64;
        let (before, part) = (place as usize, place.fract());
        cosines[before] * (1.0 - part) + cosines[(before + 1).min(cosines.len() - 1)] * part
    };
    (quantile(0.5), quantile(0.05))
}
