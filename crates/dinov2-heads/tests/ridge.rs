//! Ridge regression against scikit-learn (fixture made by `make_propagation_fixtures.py`).

use dinov2_heads::{RidgeError, RidgeSums};

const PATCHES: usize = 240;
const DIM: usize = 9;
const L2: f64 = 1e-2;

/// Features, targets, weights, predictions.
fn fixture() -> [Vec<f32>; 4] {
    let path = format!("{}/tests/fixtures/ridge.f32", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut values = bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap()));
    [PATCHES * DIM, PATCHES, PATCHES, PATCHES].map(|length| values.by_ref().take(length).collect())
}

#[test]
fn predictions_as_scikit_learn_however_the_patches_come() {
    let [features, targets, weights, expected] = fixture();
    for patches_each in [PATCHES, 60, 7, 1] {
        let mut sums = RidgeSums::new(DIM);
        let parts = features.chunks(patches_each * DIM).zip(targets.chunks(patches_each));
        for ((features, targets), weights) in parts.zip(weights.chunks(patches_each)) {
            sums.add(features, targets, weights).unwrap();
        }
        let mut got = Vec::new();
        sums.solve(L2).unwrap().predict_into(&features, &mut got).unwrap();
        let off = got.iter().zip(&expected).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        assert!(off < 1e-4, "predictions off by {off} with {patches_each} patches at a time");
    }
}

#[test]
fn data_that_cannot_be_used_is_refused() {
    let mut sums = RidgeSums::new(2);
    assert!(matches!(sums.solve(1.0), Err(RidgeError::Empty)));
    for (features, targets, weights) in [
        (&[1.0][..], &[1.0][..], &[1.0][..]),
        (&[1.0, 2.0], &[1.0], &[1.0, 1.0]),
        (&[], &[], &[]),
        (&[1.0, f32::NAN], &[1.0], &[1.0]),
        (&[1.0, 2.0], &[f32::INFINITY], &[1.0]),
        (&[1.0, 2.0], &[1.0], &[-1.0]),
    ] {
        assert!(sums.add(features, targets, weights).is_err(), "{features:?} {targets:?} {weights:?}");
    }
    sums.add(&[1.0, 2.0], &[3.0], &[0.0]).unwrap();
    assert!(matches!(sums.solve(1.0), Err(RidgeError::Empty)), "no weight");
    sums.add(&[1.0, 2.0], &[3.0], &[1.0]).unwrap();
    let probe = sums.solve(1.0).unwrap();
    let mut out = Vec::new();
    probe.predict_into(&[7.0, 8.0, 9.0, 9.0], &mut out).unwrap();
    assert_eq!(out, [3.0, 3.0], "of one patch, its target is all that is known");
    assert!(probe.predict_into(&[1.0], &mut out).is_err());
}
