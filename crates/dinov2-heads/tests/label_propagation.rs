//! Label propagation against DINO's arithmetic in numpy (fixture made by `make_propagation_fixtures.py`).

use std::num::NonZeroUsize;

use dinov2_core::PatchGrid;
use dinov2_heads::{LabelPropagation, PropagationConfig};

const GRID: PatchGrid = PatchGrid { rows: 4, cols: 5 };
const FRAMES: usize = 6;
const DIM: usize = 7;
const CLASSES: usize = 3;

fn fixture() -> Vec<f32> {
    let path = format!("{}/tests/fixtures/propagation.f32", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect()
}

fn config(threads: usize) -> PropagationConfig {
    PropagationConfig {
        context_frames: 2,
        radius: 2,
        neighbours: NonZeroUsize::new(4).unwrap(),
        temperature: 0.1,
        threads: NonZeroUsize::new(threads).unwrap(),
    }
}

/// The labels of every frame but the first, one behind the other.
fn propagate(values: &[f32], threads: usize) -> Vec<f32> {
    let (patches, labels) = values.split_at(FRAMES * GRID.len() * DIM);
    let mut frames = patches.chunks_exact(GRID.len() * DIM);
    let first = (frames.next().unwrap(), DIM);
    let labels = (&labels[..GRID.len() * CLASSES], CLASSES);
    let mut propagation = LabelPropagation::new(config(threads), GRID, first, labels).unwrap();
    let (mut all, mut out) = (Vec::new(), Vec::new());
    for patches in frames {
        propagation.propagate(patches, &mut out).unwrap();
        all.extend_from_slice(&out);
    }
    all
}

#[test]
fn labels_as_numpy_carries_them() {
    let values = fixture();
    let expected = &values[FRAMES * GRID.len() * DIM + GRID.len() * CLASSES..];
    let got = propagate(&values, 1);
    assert_eq!(got.len(), expected.len());
    let off = got.iter().zip(expected).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
    assert!(off < 1e-5, "labels off by {off}");
    for threads in [2, 3, 9] {
        assert_eq!(propagate(&values, threads), got, "{threads} threads");
    }
}

#[test]
fn a_thing_that_moves_within_the_radius_keeps_its_label() {
    // One patch differs from all others; it wanders two patches a frame, then jumps beyond the radius.
    let grid = PatchGrid { rows: 3, cols: 12 };
    let scene = |at: usize| -> Vec<f32> {
        (0..grid.len()).flat_map(|patch| if patch == at { [1.0, 0.0] } else { [0.0, 1.0] }).collect()
    };
    let labels: Vec<f32> =
        (0..grid.len()).flat_map(|patch| if patch == 0 { [0.0, 1.0] } else { [1.0, 0.0] }).collect();
    let first = scene(0);
    let mut propagation = LabelPropagation::new(
        PropagationConfig { neighbours: NonZeroUsize::MIN, ..config(1) },
        grid,
        (&first, 2),
        (&labels, 2),
    )
    .unwrap();
    let mut out = Vec::new();
    for (at, found) in [(2, 1.0), (4, 1.0), (9, 0.0)] {
        propagation.propagate(&scene(at), &mut out).unwrap();
        assert_eq!(out[2 * at + 1], found, "at column {at}");
        let elsewhere = out.chunks_exact(2).enumerate().filter(|(patch, _)| *patch != at);
        assert!(elsewhere.clone().all(|(_, label)| label == [1.0, 0.0]), "{out:?}");
    }
}

#[test]
fn wrong_shapes_are_refused_and_nan_gets_no_label() {
    let patches = vec![1.0; GRID.len() * DIM];
    let labels = vec![1.0; GRID.len()];
    let error =
        LabelPropagation::new(config(1), GRID, (&patches[1..], DIM), (&labels, 1)).unwrap_err().to_string();
    assert_eq!(error, "patch features: expected 7 values for each of 4x5 patches, got 139");
    assert!(LabelPropagation::new(config(1), GRID, (&patches, DIM), (&labels, 2)).is_err());
    let mut propagation = LabelPropagation::new(config(2), GRID, (&patches, DIM), (&labels, 1)).unwrap();
    let mut out = Vec::new();
    assert!(propagation.propagate(&patches[DIM..], &mut out).is_err());
    let mut broken = patches.clone();
    broken[0] = f32::NAN;
    propagation.propagate(&broken, &mut out).unwrap();
    assert_eq!(out[0], 0.0);
    assert!(out[1..].iter().all(|label| *label == 1.0));
}
