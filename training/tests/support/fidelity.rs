//! Fidelity of a student to its teacher, on the CPU engine.

use dinov2_core::statistics::{cosine, quantile, sorted};
use dinov2_core::{Extractor, Features, ImageView, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision};
use dinov2_weights::Model;
use training::data::Dataset;

/// Patch cosine between two models on the engine that runs them, over images as squares of a side: median and 5th percentile,
/// interpolated.
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
        let pairs = got.patches().chunks_exact(got.dim()).zip(want.patches().chunks_exact(want.dim()));
        cosines.extend(pairs.map(|(got, want)| cosine(got, want)));
    }
    let cosines = sorted(cosines);
    (quantile(&cosines, 0.5), quantile(&cosines, 0.05))
}
