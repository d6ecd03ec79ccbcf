//! The linear probe against scikit-learn and its score against PyTorch and scikit-learn (fixtures made by
//! `make_probe_fixtures.py`).

use std::num::NonZeroUsize;

use dinov2_core::PatchGrid;
use dinov2_heads::{Confusion, LabelError, LabelMap, LinearProbe, ProbeConfig, ProbeError};

/// The parts of a fixture, of these lengths.
fn read<const PARTS: usize>(name: &str, lengths: [usize; PARTS]) -> [Vec<f32>; PARTS] {
    let path = format!("{}/tests/fixtures/{name}.f32", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut values = bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap()));
    let parts = lengths.map(|length| values.by_ref().take(length).collect());
    assert_eq!(values.count(), 0);
    parts
}

const CONFIG: ProbeConfig =
    ProbeConfig { l2: 1e-3, max_steps: 1000, tolerance: 1e-5, threads: NonZeroUsize::MIN };

/// Logits of a probe less their mean, which softmax does not see.
fn centred_logits(probe: &LinearProbe, features: &[f32]) -> Vec<f32> {
    let mut logits = Vec::new();
    probe.logits_into(features, &mut logits).unwrap();
    let classes = probe.classes();
    for row in logits.chunks_exact_mut(classes) {
        let mean = row.iter().sum::<f32>() / classes as f32;
        row.iter_mut().for_each(|logit| *logit -= mean);
    }
    logits
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

#[test]
fn probe_as_scikit_learn() {
    let [features, targets, expected] = read("probe", [300 * 10, 300 * 3, 300 * 3]);
    let mut told = 0;
    let (probe, fit) =
        LinearProbe::fit((&features, 10), (&targets, 3), &CONFIG, |step, _| told = step).unwrap();
    assert!(fit.converged && fit.steps == told, "{fit:?}");
    let off = largest_difference(&centred_logits(&probe, &features), &expected);
    assert!(off < 2e-3, "logits off by {off}");
}

#[test]
fn repeated_patches_change_nothing_but_the_work() {
    let [features, targets, expected] = read("probe", [300 * 10, 300 * 3, 300 * 3]);
    // Many tasks, the last one short.
    let (many, many_targets) = (features.repeat(17), targets.repeat(17));
    let fit = |threads| {
        let config = ProbeConfig { threads: NonZeroUsize::new(threads).unwrap(), ..CONFIG };
        LinearProbe::fit((&many, 10), (&many_targets, 3), &config, |_, _| ()).unwrap().0
    };
    let one = fit(1);
    assert!(largest_difference(&centred_logits(&one, &features), &expected) < 2e-3);
    assert!(fit(2) == one && fit(5) == one, "the number of threads must not show");
}

#[test]
fn a_steeper_penalty_leaves_smaller_logits() {
    let [features, targets, _] = read("probe", [300 * 10, 300 * 3, 300 * 3]);
    let spread = |l2| {
        let config = ProbeConfig { l2, ..CONFIG };
        let (probe, _) = LinearProbe::fit((&features, 10), (&targets, 3), &config, |_, _| ()).unwrap();
        centred_logits(&probe, &features).iter().map(|logit| logit.abs()).fold(0.0, f32::max)
    };
    assert!(spread(1.0) < 0.5 * spread(1e-3));
}

#[test]
fn training_data_that_cannot_be_used_is_refused() {
    let fit = |features: &[f32], targets: &[f32]| {
        LinearProbe::fit((features, 2), (targets, 2), &CONFIG, |_, _| ()).unwrap_err()
    };
    let features = [1.0, 2.0, 3.0, 5.0];
    assert!(matches!(fit(&[], &[]), ProbeError::Shape { got: 0, .. }));
    assert!(matches!(fit(&features[..3], &[1.0, 0.0]), ProbeError::Shape { got: 3, .. }));
    assert_eq!(fit(&features, &[1.0, 0.0]), ProbeError::Counts { features: 2, targets: 1 });
    assert_eq!(fit(&features, &[0.0; 4]), ProbeError::Unlabelled { patches: 2 });
    for (wrong, patch) in [([1.0, 2.0, f32::NAN, 5.0], 1), ([1.0, f32::INFINITY, 3.0, 5.0], 0)] {
        let error = fit(&wrong, &[1.0, 0.0, 0.0, 1.0]);
        assert!(matches!(error, ProbeError::Value { patch: got, .. } if got == patch), "{error}");
    }
    let told = fit(&features, &[1.0, 0.0, -1.0, 1.0]).to_string();
    assert_eq!(told, "targets: expected non-negative values, got -1 in patch 1");
}

#[test]
fn shares_and_scores_as_numpy_torch_and_scikit_learn() {
    let lengths = [3 * 4 * 5, 37 * 50, 3 * 4 * 5, 5 * 5, 5, 1];
    let [logits, labels, shares, matrix, iou, accuracy] = read("segmentation", lengths);
    let labels: Vec<u8> = labels.into_iter().map(|label| label as u8).collect();
    let labels = LabelMap::new(&labels, (50, 37), 5, 255).unwrap();
    let grid = PatchGrid { rows: 3, cols: 4 };

    let mut got = vec![7.0];
    labels.patch_shares(grid, &mut got);
    assert_eq!(got[0], 7.0, "shares are appended");
    assert!(largest_difference(&got[1..], &shares) < 1e-6);

    let mut confusion = Confusion::new(5);
    confusion.add(&logits, grid, labels).unwrap();
    let total: f32 = matrix.iter().sum();
    assert_eq!(confusion.total() as f32, total);
    let got: Vec<f32> = confusion.class_iou().iter().map(|iou| iou.unwrap() as f32).collect();
    assert!(largest_difference(&got, &iou) < 1e-6, "{got:?} {iou:?}");
    assert!((confusion.accuracy() as f32 - accuracy[0]).abs() < 1e-6);
    assert!((confusion.mean_iou() as f32 - iou.iter().sum::<f32>() / 5.0).abs() < 1e-6);
    // Pictures add up: the same twice has the same shares.
    confusion.add(&logits, grid, labels).unwrap();
    assert_eq!(confusion.total() as f32, 2.0 * total);
    assert!((confusion.accuracy() as f32 - accuracy[0]).abs() < 1e-6);
}

#[test]
fn a_class_that_is_nowhere_has_no_iou() {
    // One patch that says class 1; labels: three pixels 1, one pixel 0, two ignored; class 2 is nowhere.
    let labels = LabelMap::new(&[1, 1, 1, 0, 9, 9], (3, 2), 3, 9).unwrap();
    let mut confusion = Confusion::new(3);
    confusion.add(&[0.0, 1.0, 0.5], PatchGrid { rows: 1, cols: 1 }, labels).unwrap();
    assert_eq!(confusion.class_iou(), [Some(0.0), Some(0.75), None]);
    assert_eq!((confusion.mean_iou(), confusion.accuracy(), confusion.total()), (0.375, 0.75, 4));
}

#[test]
fn labels_that_cannot_be_used_are_refused() {
    let wrong = LabelMap::new(&[0, 1, 1, 0, 1, 3], (3, 2), 3, 255).unwrap_err();
    assert_eq!(wrong.to_string(), "label: expected less than 3, got 3 at column 2, row 1");
    let wrong = |pixels: &[u8], size| LabelMap::new(pixels, size, 3, 255).unwrap_err();
    assert!(matches!(wrong(&[0; 5], (3, 2)), LabelError::Size { got: 5, .. }));
    assert!(matches!(wrong(&[], (0, 0)), LabelError::Size { got: 0, .. }));
    assert!(matches!(wrong(&[0], (usize::MAX, 2)), LabelError::Size { got: 1, .. }));
    let labels = LabelMap::new(&[0; 6], (3, 2), 3, 255).unwrap();
    let error = Confusion::new(3).add(&[0.0; 5], PatchGrid { rows: 2, cols: 1 }, labels).unwrap_err();
    assert_eq!(error.to_string(), "logits: expected 3 for each of 2x1 patches, got 5");
}
