//! Several images in one call give the bits that each gives alone.

mod common;

use std::num::NonZeroUsize;

use common::{Picture, cases};
use dinov2_core::{ExtractError, Extractor, Facet, Features, ImageView, Tap, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision};
use dinov2_weights::Model;

fn engine(model: &Model, precision: CpuPrecision) -> CpuEngine {
    let mut config = CpuConfig::with_threads(NonZeroUsize::new(3).expect("3"));
    config.precision = precision;
    CpuEngine::new(model, config).expect("engine")
}

/// A picture unlike any of another `phase`, in colours and not just in shift.
fn picture(columns: usize, rows: usize, patch: usize, phase: usize) -> Picture {
    let mut picture = Picture::pattern(columns * patch, rows * patch);
    for (at, pixel) in picture.pixels.iter_mut().enumerate() {
        *pixel = pixel.wrapping_mul(1 + 2 * phase as u8).wrapping_add((at / 7 * phase) as u8);
    }
    picture
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn assert_same_bits(got: &Features, want: &Features, what: &str) {
    assert_eq!(got.grid(), want.grid(), "{what}");
    assert!(bits(got.tokens()) == bits(want.tokens()), "{what}: tokens");
    assert_eq!(got.taps().count(), want.taps().count(), "{what}");
    for ((tap, got), (wanted, want)) in got.taps().zip(want.taps()) {
        assert_eq!(tap, wanted, "{what}");
        assert!(bits(got) == bits(want), "{what}: {tap}");
    }
}

fn check(model: &Model, precision: CpuPrecision, pictures: &[Picture], what: &str) {
    let mut engine = engine(model, precision);
    let last = model.spec().depth - 1;
    let facets = [Facet::Query, Facet::Value].map(|facet| Tap::Facet { layer: last, facet });
    let layers = [false, true].map(|norm| Tap::Layer { layer: 0, norm });
    let taps = Taps::new(facets.into_iter().chain(layers).chain([Tap::ClsAttention]));
    let alone: Vec<Features> = pictures
        .iter()
        .map(|picture| {
            let mut features = Features::new();
            engine.extract(picture.view(), &taps, &mut features).expect("features");
            features
        })
        .collect();
    assert!(bits(alone[0].tokens()) != bits(alone[1].tokens()), "{what}: pictures that differ");
    let images: Vec<ImageView<'_>> = pictures.iter().map(Picture::view).collect();
    let mut together = vec![Features::new(); images.len()];
    engine.extract_batch(&images, &taps, &mut together).expect("features");
    for (index, (got, want)) in together.iter().zip(&alone).enumerate() {
        assert_same_bits(got, want, &format!("{what}, {precision:?}, image {index}"));
    }
}

#[test]
fn a_batch_gives_the_bits_of_single_images() {
    for case in cases("golden") {
        let model = case.convert().model;
        let patch = model.spec().patch_size;
        let same: Vec<Picture> = (0..3).map(|phase| picture(5, 4, patch, phase)).collect();
        let sizes = [(5, 4), (3, 2), (5, 4), (2, 3), (3, 2)];
        let mixed: Vec<Picture> =
            (0..).zip(sizes).map(|(phase, (columns, rows))| picture(columns, rows, patch, phase)).collect();
        for precision in [CpuPrecision::F32, CpuPrecision::Half, CpuPrecision::Int8] {
            check(&model, precision, &same, &format!("{}: one size", case.name));
            check(&model, precision, &mixed, &format!("{}: several sizes", case.name));
        }
    }
}

#[test]
fn a_batch_is_checked_before_anything_runs() {
    let case = &cases("golden")[0];
    let converted = case.convert();
    let mut engine = engine(&converted.model, CpuPrecision::F32);
    let (whole, broken) = (picture(2, 2, 14, 0), Picture::pattern(15, 14));
    let images = [whole.view(), broken.view()];
    let mut out = vec![Features::new(); 2];
    let got = engine.extract_batch(&images, &Taps::none(), &mut out[..1]);
    assert!(matches!(got, Err(ExtractError::BatchLengths { images: 2, outputs: 1 })), "{got:?}");
    let got = engine.extract_batch(&images, &Taps::none(), &mut out);
    assert!(matches!(got, Err(ExtractError::Grid(_))), "{got:?}");
    assert!(out[0].tokens().is_empty());
    engine.extract_batch(&[], &Taps::none(), &mut []).expect("nothing to do");
}
