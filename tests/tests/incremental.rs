//! An incremental engine against the plain one, frame by frame through small clips.

mod common;

use std::num::NonZeroUsize;

use common::{Picture, cases, relative_l2};
use dinov2_core::{Extractor, Facet, Features, Tap, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision, Incremental};
use dinov2_weights::Model;

fn engine(model: &Model, precision: CpuPrecision, incremental: Option<(f32, usize)>) -> CpuEngine {
    let mut config = CpuConfig::with_threads(NonZeroUsize::new(3).expect("3"));
    config.precision = precision;
    config.incremental = incremental.map(|(threshold, refresh)| {
        Incremental::new(threshold, NonZeroUsize::new(refresh).expect("above zero")).expect("a threshold")
    });
    CpuEngine::new(model, config).expect("engine")
}

fn every_kind_of_tap(model: &Model) -> Taps {
    let last = model.spec().depth - 1;
    let facets = [Facet::Query, Facet::Key, Facet::Value].map(|facet| Tap::Facet { layer: last, facet });
    let layers = [false, true].map(|norm| Tap::Layer { layer: 0, norm });
    Taps::new(facets.into_iter().chain(layers).chain([Tap::ClsAttention]))
}

/// A still scene with a square of one patch at patch `at`; `shade` brightens a single pixel of patch 0.
fn scene(columns: usize, rows: usize, patch: usize, at: usize, shade: u8) -> Picture {
    let mut picture = Picture::pattern(columns * patch, rows * patch);
    let (left, top) = (at % columns * patch, at / columns * patch);
    for y in top..top + patch {
        picture.pixels[(y * columns * patch + left) * 3..][..patch * 3].fill(250);
    }
    picture.pixels[0] = picture.pixels[0].wrapping_add(shade);
    picture
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn assert_same_bits(got: &Features, want: &Features, what: &str) {
    assert!(bits(got.tokens()) == bits(want.tokens()), "{what}: tokens");
    assert_eq!(got.taps().count(), want.taps().count(), "{what}");
    for ((tap, got), (_, want)) in got.taps().zip(want.taps()) {
        assert!(bits(got) == bits(want), "{what}: {tap}");
    }
}

#[test]
fn threshold_zero_gives_the_bits_of_the_plain_engine() {
    for case in cases("golden") {
        let model = case.convert().model;
        let patch = model.spec().patch_size;
        let taps = every_kind_of_tap(&model);
        for precision in [CpuPrecision::F32, CpuPrecision::Half, CpuPrecision::Int8] {
            let mut plain = engine(&model, precision, None);
            let mut incremental = engine(&model, precision, Some((0.0, 1000)));
            // A square that moves, stands still and comes back; a single pixel; another grid and back.
            let clip = [(3, 0), (4, 0), (4, 0), (3, 0), (3, 1), (9, 1), (9, 1)]
                .map(|(at, shade)| scene(5, 4, patch, at, shade));
            let others = [scene(3, 2, patch, 1, 0), scene(5, 4, patch, 9, 1), scene(4, 5, patch, 9, 1)];
            for (index, picture) in clip.iter().chain(&others).enumerate() {
                let (mut want, mut got) = (Features::new(), Features::new());
                plain.extract(picture.view(), &taps, &mut want).expect("features");
                incremental.extract(picture.view(), &taps, &mut got).expect("features");
                let what = format!("{}, {precision:?}, frame {index}", case.name);
                assert_same_bits(&got, &want, &what);
                let share = incremental.recomputed_share().expect("an incremental engine");
                match index {
                    2 | 6 => assert_eq!(share, 0.0, "{what}: nothing has changed"),
                    0 | 7 | 8 | 9 => assert_eq!(share, 1.0, "{what}: nothing to reuse"),
                    _ => assert!(share > 0.0, "{what}"),
                }
            }
            assert_eq!(plain.recomputed_share(), None);
        }
    }
}

#[test]
fn a_refresh_computes_everything_and_a_threshold_less() {
    for case in cases("golden") {
        let model = case.convert().model;
        let patch = model.spec().patch_size;
        let (mut plain, mut incremental) =
            (engine(&model, CpuPrecision::F32, None), engine(&model, CpuPrecision::F32, Some((0.05, 4))));
        let mut reused = 0;
        for index in 0..9 {
            let picture = scene(6, 5, patch, 7 + index % 3, 0);
            let (mut want, mut got) = (Features::new(), Features::new());
            plain.extract(picture.view(), &Taps::none(), &mut want).expect("features");
            incremental.extract(picture.view(), &Taps::none(), &mut got).expect("features");
            let what = format!("{}, frame {index}", case.name);
            let share = incremental.recomputed_share().expect("an incremental engine");
            let error = relative_l2(got.tokens(), want.tokens());
            if index % 4 == 0 {
                assert_eq!(share, 1.0, "{what}");
                assert_eq!(bits(got.tokens()), bits(want.tokens()), "{what}");
            } else {
                reused += usize::from(share < 1.0);
                // Every block keeps rows that are up to 5 % off.
                assert!(error < 0.05 * model.spec().depth as f64, "{what}: {error}");
            }
        }
        assert!(reused > 0, "{}: nothing was reused", case.name);
    }
}

#[test]
fn a_batch_counts_as_consecutive_frames() {
    let model = cases("golden")[0].convert().model;
    let mut incremental = engine(&model, CpuPrecision::F32, Some((0.0, 1000)));
    let picture = scene(3, 3, model.spec().patch_size, 4, 0);
    let mut out = vec![Features::new(); 2];
    incremental.extract_batch(&[picture.view(); 2], &Taps::none(), &mut out).expect("features");
    assert_eq!(incremental.recomputed_share(), Some(0.0));
    assert_same_bits(&out[1], &out[0], "the second of two equal frames");
}

#[test]
fn thresholds_are_finite_and_not_negative() {
    for wrong in [-0.1, f32::NAN, f32::INFINITY] {
        assert_eq!(Incremental::new(wrong, Incremental::REFRESH), None, "{wrong}");
    }
    assert!(Incremental::new(0.0, Incremental::REFRESH).is_some());
}
