//! Cosine similarities against numpy's (fixture made by `make_similarity_fixture.py`).

use dinov2_heads::{SimilarityError, similarity_map};

const COUNT: usize = 24;
const DIM: usize = 70;

fn map(patches: &[f32], query: &[f32]) -> Vec<f32> {
    let mut out = vec![9.0; 3];
    similarity_map(patches, query, &mut out).unwrap();
    out
}

#[test]
fn similarities_as_numpy() {
    let path = format!("{}/tests/fixtures/similarity_24x70.f32", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect();
    let (patches, rest) = values.split_at(COUNT * DIM);
    let (query, expected) = rest.split_at(DIM);
    let got = map(patches, query);
    assert_eq!(got.len(), COUNT);
    for (patch, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= 1e-6, "patch {patch}: {got} instead of {expected}");
    }
    assert_eq!(got[7], 1.0);
    assert!(expected.iter().any(|value| *value < 0.6), "the fixture tells nothing apart");
}

#[test]
fn edges_of_the_number_range() {
    // Opposite, orthogonal, nothing, the largest and the smallest numbers.
    let query = [0.0, 2.0];
    let patches = [0.0, -5.0, 3.0, 0.0, 0.0, 0.0, 0.0, f32::MAX, f32::MAX, f32::MAX, 0.0, f32::MIN_POSITIVE];
    let half = std::f32::consts::FRAC_1_SQRT_2;
    assert_eq!(map(&patches, &query), [-1.0, 0.0, 0.0, 1.0, half, 1.0]);
    assert_eq!(map(&patches, &[0.0, 0.0]), [0.0; 6]);
    assert!(map(&[f32::NAN, 1.0, f32::INFINITY, 1.0], &query).iter().all(|value| value.is_nan()));
    assert!(map(&[], &query).is_empty());
}

#[test]
fn refuses_what_does_not_fit() {
    let mut out = Vec::new();
    assert_eq!(similarity_map(&[1.0; 5], &[1.0; 2], &mut out), Err(SimilarityError { dim: 2, got: 5 }));
    assert_eq!(similarity_map(&[1.0; 5], &[], &mut out), Err(SimilarityError { dim: 0, got: 5 }));
}
