//! The published student with patches of 21 pixels, on images outside its training set.

use std::path::{Path, PathBuf};

use dinov2_core::statistics::{cosine, quantile, sorted};
use dinov2_core::{Extractor, Features, ImageView, PatchGrid, PositionConvention, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision};
use dinov2_weights::Model;
use dinov2_weights::position::resample;
use training::data::Dataset;
use training::views::centre_square;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn engine(name: &str) -> CpuEngine {
    let model = Model::open(root().join("models").join(name)).unwrap();
    assert!(
        model.metadata().quantization.as_ref().is_some_and(|quantization| quantization.meets_gate()),
        "{name}"
    );
    let mut config = CpuConfig::default();
    config.precision = CpuPrecision::Int8;
    CpuEngine::new(&model, config).unwrap()
}

/// Patches of a square picture, brought to `grid`.
fn patches(engine: &mut CpuEngine, pixels: &[u8], side_px: usize, grid: PatchGrid) -> Vec<f32> {
    let mut features = Features::new();
    engine.extract(ImageView::new(pixels, side_px, side_px).unwrap(), &Taps::none(), &mut features).unwrap();
    let dim = features.dim();
    // A position table begins with a token.
    let table = [&vec![0.0; dim], features.patches()].concat();
    let resized = resample(&table, features.grid(), grid, PositionConvention::ExactSizeAntialias).unwrap();
    resized[dim..].to_vec()
}

/// With patches of 21 pixels its features are close to those of its teacher with patches of 14. On difficult patches they are closer
/// than the teacher's own on an image with as few patches.
#[test]
fn larger_patches_see_what_smaller_ones_see() {
    let (mut teacher, mut student) =
        (engine("vits14-focus-int8.safetensors"), engine("vits21-focus-int8.safetensors"));
    let grid = PatchGrid { rows: 12, cols: 12 };
    let dataset = Dataset::open(&[root().join("examples/media/*.jpg").display().to_string()]).unwrap();
    assert_eq!(dataset.len(), 3);
    let (mut of_student, mut of_small) = (Vec::new(), Vec::new());
    for sample in 0..dataset.len() {
        let image = dataset.decode(sample).unwrap();
        let [large, small] = [252, 168].map(|side_px| centre_square(&image, side_px));
        let want = patches(&mut teacher, &large, 252, grid);
        let compare = |cosines: &mut Vec<f64>, got: &[f32]| {
            for (got, want) in got.chunks_exact(384).zip(want.chunks_exact(384)) {
                cosines.push(cosine(got, want));
            }
        };
        compare(&mut of_student, &patches(&mut student, &large, 252, grid));
        compare(&mut of_small, &patches(&mut teacher, &small, 168, grid));
    }
    let [student, small] = [of_student, of_small].map(|cosines| {
        assert_eq!(cosines.len(), 3 * grid.len());
        let cosines = sorted(cosines);
        [0.5, 0.05].map(|share| quantile(&cosines, share))
    });
    println!("median, 5th percentile: student {student:.4?}, teacher on a smaller image {small:.4?}");
    assert!(student[0] > 0.95 && student[1] > small[1] + 0.02, "{student:?}, {small:?}");
}
