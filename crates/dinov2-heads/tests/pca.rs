//! Principal components against numpy's SVD (fixtures made by `make_fixtures.py`).

use dinov2_heads::{MAX_FIT_PATCHES, Pca, PcaError, PcaView};

struct Case {
    count: usize,
    dim: usize,
    parts: Vec<Vec<f32>>,
}

impl Case {
    /// Parts: patches, mean, directions, variances, coordinates, colours.
    fn read(name: &str, count: usize, dim: usize) -> Self {
        let path = format!("{}/tests/fixtures/{name}_{count}x{dim}.f32", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut values = bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap()));
        let lengths = [count * dim, dim, 3 * dim, 3, 3 * count, 3 * count];
        let parts = lengths.map(|length| values.by_ref().take(length).collect()).to_vec();
        assert_eq!(values.count(), 0);
        Self { count, dim, parts }
    }

    fn all() -> [Self; 3] {
        [Self::read("falling", 64, 96), Self::read("flat", 120, 80), Self::read("few", 5, 12)]
    }
}

/// Largest difference relative to the largest value.
fn error(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    got.iter().zip(expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn basis_and_coordinates_as_numpy() {
    for case in Case::all() {
        let pca = Pca::fit(&case.parts[0], case.dim, 3).unwrap();
        let mut coordinates = Vec::new();
        pca.project_into(&case.parts[0], &mut coordinates).unwrap();
        for (what, got, expected) in [
            ("mean", pca.mean(), &case.parts[1]),
            ("directions", pca.directions(), &case.parts[2]),
            ("variances", pca.variances(), &case.parts[3]),
            ("coordinates", &coordinates, &case.parts[4]),
        ] {
            let error = error(got, expected);
            assert!(error < 2e-5, "{what} of {}x{}: {error}", case.count, case.dim);
        }
    }
}

#[test]
fn colours_as_numpy() {
    for case in Case::all() {
        let mut view = PcaView::fit(&case.parts[0], case.dim).unwrap();
        let mut rgb = Vec::new();
        view.rgb_into(&case.parts[0], &mut rgb).unwrap();
        assert_eq!(rgb.len(), case.count * 3);
        let worst = rgb.iter().zip(&case.parts[5]).map(|(got, expected)| (f32::from(*got) - expected).abs());
        assert!(worst.fold(0.0, f32::max) < 0.51, "{}x{}", case.count, case.dim);
    }
}

#[test]
fn basis_and_range_stay_frozen() {
    let case = Case::read("falling", 64, 96);
    let mut view = PcaView::fit(&case.parts[0], 96).unwrap();
    let (mut all, mut some) = (Vec::new(), Vec::new());
    view.rgb_into(&case.parts[0], &mut all).unwrap();
    view.rgb_into(&case.parts[0][..7 * 96], &mut some).unwrap();
    assert_eq!(some, all[..21]);
}

#[test]
fn fewer_patches_than_components() {
    let one = Pca::fit(&[1.0, 2.0, 3.0, 4.0], 4, 3).unwrap();
    assert_eq!(one.mean(), [1.0, 2.0, 3.0, 4.0]);
    assert!(one.directions().iter().chain(one.variances()).all(|value| *value == 0.0));

    // Two patches span one direction, (2, -3, 6) / 7 with its largest entry positive, and variance |difference|^2 / 2.
    let two = Pca::fit(&[3.0, -1.0, 7.0, 1.0, 2.0, 1.0], 3, 3).unwrap();
    let direction = [2.0 / 7.0, -3.0 / 7.0, 6.0 / 7.0];
    assert!(error(&two.directions()[..3], &direction) < 1e-6, "{:?}", two.directions());
    assert!(error(&two.variances()[..1], &[24.5]) < 1e-6);
    assert!(two.directions()[3..].iter().all(|value| *value == 0.0));

    // Nothing varies: mid-grey.
    let mut rgb = Vec::new();
    let mut view = PcaView::fit(&[0.5; 100 * 8], 8).unwrap();
    view.rgb_into(&[0.5; 2 * 8], &mut rgb).unwrap();
    assert_eq!(rgb, [128; 6]);
}

#[test]
fn unusable_features_are_errors() {
    assert_eq!(Pca::fit(&[], 4, 3), Err(PcaError::Shape { dim: 4, got: 0 }));
    assert_eq!(Pca::fit(&[1.0; 7], 4, 3), Err(PcaError::Shape { dim: 4, got: 7 }));
    assert_eq!(Pca::fit(&[1.0; 8], 0, 3), Err(PcaError::Shape { dim: 0, got: 8 }));
    assert_eq!(Pca::fit(&[1.0; 8], 2, 3), Err(PcaError::Components { dim: 2, got: 3 }));
    assert_eq!(Pca::fit(&[1.0; 8], 4, 0), Err(PcaError::Components { dim: 4, got: 0 }));
    for value in [f32::NAN, f32::INFINITY] {
        let mut patches = [1.0; 8];
        patches[5] = value;
        let error = Pca::fit(&patches, 4, 3).unwrap_err();
        assert_eq!(error, PcaError::NotFinite { patch: 1, value: value.to_string() });
    }
    let pca = Pca::fit(&[1.0, 2.0, 3.0, 4.0], 2, 1).unwrap();
    assert!(pca.project_into(&[1.0; 3], &mut Vec::new()).is_err());
}

#[test]
fn many_patches_are_fitted_on_some() {
    // Coordinates along (3, 4) / 5, repeated: every subset of a period has the same basis.
    let count = 3 * MAX_FIT_PATCHES + 1;
    let patches: Vec<f32> =
        (0..count).flat_map(|index| [3.0, 4.0].map(|side| side * ((index % 7) as f32 - 3.0))).collect();
    let pca = Pca::fit(&patches, 2, 1).unwrap();
    assert!(error(pca.directions(), &[0.6, 0.8]) < 1e-6);
    // Variance of -3..=3, equally likely, is 4; times 25.
    assert!(error(pca.variances(), &[100.0]) < 0.01, "{:?}", pca.variances());
}
