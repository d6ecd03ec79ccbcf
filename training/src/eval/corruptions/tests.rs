//! Corruptions against ImageNet-C's own code (`make_eval_fixtures.py`), and the moments of the random ones.

use dinov2_io::{Frame, decode_still};

use super::*;

fn fixture(name: &str) -> Frame {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut frame = Frame::new();
    decode_still(&bytes, &mut frame).unwrap();
    frame
}

/// Largest and mean difference of two pictures, in steps of 1/255.
fn differences(left: &[u8], right: &[u8]) -> (u8, f64) {
    assert_eq!(left.len(), right.len());
    let off = left.iter().zip(right).map(|(left, right)| left.abs_diff(*right));
    (off.clone().max().unwrap(), off.map(f64::from).sum::<f64>() / left.len() as f64)
}

/// Mean and standard deviation of values in 0..=1.
fn moments(pixels: &[u8]) -> (f64, f64) {
    let values = || pixels.iter().map(|value| f64::from(*value) / 255.0);
    let mean = values().sum::<f64>() / pixels.len() as f64;
    (mean, (values().map(|value| (value - mean).powi(2)).sum::<f64>() / pixels.len() as f64).sqrt())
}

fn grey(level: u8) -> Vec<u8> {
    vec![level; 128 * 128 * 3]
}

/// Numbers in 0..997 without an obvious pattern: what `make_eval_fixtures.py` draws from.
fn hashed(index: usize) -> usize {
    (7919 * index + 13 * index * index) % 997
}

/// A corruption of what ImageNet-C's code was given: its picture, and its numbers for those that are random.
fn as_drawn(kind: Corruption, clean: &Frame, severity: Severity) -> Vec<u8> {
    let (size, count) = ((clean.width_px, clean.height_px), clean.width_px * clean.height_px);
    let mut values: Vec<f32> = clean.pixels.iter().map(|value| f32::from(*value) / 255.0).collect();
    match kind {
        Corruption::MotionBlur => return blur::motion(&clean.pixels, size, severity, 30.0),
        Corruption::GlassBlur => {
            let mut taken = 0..;
            let mut draw = |most: i32| (hashed(taken.next().unwrap()) as i32) % (2 * most) - most;
            return glass::glass(&clean.pixels, size, severity, &mut draw);
        }
        Corruption::Snow => {
            let normal = (0..count).map(|index| (hashed(index) as f64 / 249.25 - 2.0) as f32).collect();
            snow::snow(&mut values, size, severity, &snow::Flakes { normal, degrees: -100.0 });
        }
        Corruption::Elastic => {
            let drawn = |first: usize| {
                (first..first + count).map(|index| hashed(index) as f64 / 498.5 - 1.0).collect()
            };
            let shifts = elastic::Shifts { right: drawn(0), down: drawn(count) };
            values = elastic::elastic(&values, size, severity, &shifts);
        }
        _ => return kind.apply(clean.view(), severity, 0),
    }
    values.into_iter().map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8).collect()
}

#[test]
fn what_follows_from_the_numbers_drawn_is_as_in_imagenet_c() {
    let (clean, corrupted) = (fixture("clean.png"), fixture("corrupted.png"));
    let mut expected = corrupted.pixels.chunks_exact(clean.pixels.len());
    use Corruption::{
        Brightness, Contrast, DefocusBlur, Elastic, GlassBlur, Jpeg, MotionBlur, Pixelate, Snow, ZoomBlur,
    };
    for kind in
        [Brightness, Contrast, DefocusBlur, MotionBlur, Pixelate, Jpeg, ZoomBlur, GlassBlur, Snow, Elastic]
    {
        for severity in Severity::ALL {
            let expected = expected.next().unwrap();
            let got = as_drawn(kind, &clean, severity);
            let off = differences(&got, expected);
            if kind == Jpeg {
                // Another encoder than libjpeg, which rounds in its own way: as much must be lost.
                let lost = |pixels: &[u8]| differences(pixels, &clean.pixels).1;
                let ratio = lost(&got) / lost(expected);
                assert!((0.9..1.1).contains(&ratio), "{}: {ratio}", severity.get());
            } else {
                assert!(off.0 <= 1 && off.1 < 0.05, "{kind} {}: {off:?}", severity.get());
            }
        }
    }
    assert!(expected.next().is_none());
}

#[test]
fn noise_has_the_moments_that_it_should_have() {
    let pixels = grey(128);
    let image = ImageView::new(&pixels, 128, 128).unwrap();
    let level = 128.0 / 255.0;
    // Severities at which nothing is clipped; half a step is lost where values are cut off to bytes.
    for (severity, deviation) in Severity::ALL.into_iter().zip([0.08, 0.12]) {
        let (mean, got) = moments(&Corruption::GaussianNoise.apply(image, severity, 1));
        assert!(
            (mean + 0.5 / 255.0 - level).abs() < 0.002 && (got - deviation).abs() < 0.002,
            "{mean} {got}"
        );
    }
    for (severity, photons) in Severity::ALL.into_iter().zip([60.0, 25.0]) {
        let (mean, got) = moments(&Corruption::ShotNoise.apply(image, severity, 1));
        let deviation = f64::sqrt(level / photons);
        assert!(
            (mean + 0.5 / 255.0 - level).abs() < 0.002 && (got - deviation).abs() < 0.003,
            "{mean} {got}"
        );
    }
    for (severity, part) in Severity::ALL.into_iter().zip([0.03, 0.06, 0.09, 0.17, 0.27]) {
        let noisy = Corruption::ImpulseNoise.apply(image, severity, 1);
        let share =
            |wanted: u8| noisy.iter().filter(|value| **value == wanted).count() as f64 / noisy.len() as f64;
        assert!((share(0) - part / 2.0).abs() < 0.004 && (share(255) - part / 2.0).abs() < 0.004);
        assert!((share(0) + share(255) + share(128) - 1.0).abs() < 1e-12, "nothing else changes");
    }
}

#[test]
fn fog_is_a_grey_cloud_before_the_picture() {
    let clean = fixture("clean.png");
    let brightest = f64::from(*clean.pixels.iter().max().unwrap()) / 255.0;
    for (severity, density) in Severity::ALL.into_iter().zip([1.5, 2.0, 2.5, 2.5, 3.0]) {
        let foggy = Corruption::Fog.apply(clean.view(), severity, 7);
        // x' = (x + density * cloud) * kept, cloud in 0..=1 and the same for all channels; a step is lost in bytes.
        let kept = brightest / (brightest + density);
        let step = 1.0 / 255.0 / (kept * density);
        let clouds = foggy
            .iter()
            .zip(&clean.pixels)
            .map(|(foggy, clean)| (f64::from(*foggy) / kept - f64::from(*clean)) / 255.0 / density);
        let clouds: Vec<f64> = clouds.collect();
        for cloud in clouds.chunks_exact(3) {
            let (least, most) =
                (cloud.iter().copied().fold(1.0, f64::min), cloud.iter().copied().fold(0.0, f64::max));
            assert!(most - least <= 1.01 * step && least > -1.01 * step && most <= 1.0, "{cloud:?}");
        }
        let mean = clouds.iter().sum::<f64>() / clouds.len() as f64;
        let spread = clouds.iter().map(|cloud| (cloud - mean).abs()).sum::<f64>() / clouds.len() as f64;
        assert!((0.15..0.85).contains(&mean) && spread > 0.03, "{mean} {spread}");
    }
}

#[test]
fn the_seed_alone_decides_and_every_picture_keeps_its_size() {
    let clean = fixture("clean.png");
    for kind in Corruption::ALL {
        for severity in [Severity::ALL[0], Severity::ALL[4]] {
            let first = kind.apply(clean.view(), severity, 1);
            assert_eq!(first.len(), clean.pixels.len(), "{kind}");
            assert!(first == kind.apply(clean.view(), severity, 1), "{kind}");
            assert!(first != clean.pixels, "{kind} leaves nothing as it was");
            use Corruption::{
                Elastic, Fog, GaussianNoise, GlassBlur, ImpulseNoise, MotionBlur, ShotNoise, Snow,
            };
            let random = [GaussianNoise, ShotNoise, ImpulseNoise, GlassBlur, MotionBlur, Snow, Fog, Elastic]
                .contains(&kind);
            assert_eq!(first != kind.apply(clean.view(), severity, 2), random, "{kind}");
        }
        // The smallest pictures, and sides of no power of two.
        for (width, height) in [(1, 1), (1, 30), (30, 1), (17, 33)] {
            let pixels = vec![90; width * height * 3];
            let image = ImageView::new(&pixels, width, height).unwrap();
            assert_eq!(kind.apply(image, Severity::ALL[4], 3).len(), pixels.len(), "{kind} {width}x{height}");
        }
    }
}
