//! Curation's algorithms against numpy, scipy and scikit-learn (`make_curate.py`), and against their definitions.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::duplicates::Components;
use super::thin::thin;
use super::*;
use crate::data::Image;

#[derive(Deserialize)]
struct Expected {
    hashes: Vec<ExpectedHash>,
    neighbours: Vec<ExpectedNeighbours>,
    inertia: BTreeMap<usize, f64>,
}

#[derive(Deserialize)]
struct ExpectedHash {
    size: [usize; 2],
    kind: usize,
    hash: String,
}

#[derive(Deserialize)]
struct ExpectedNeighbours {
    row: usize,
    neighbours: Vec<u32>,
    cosines: Vec<f32>,
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("../../tests/fixtures/curate.json")).unwrap()
}

/// As in `make_curate.py`.
fn noise(mut state: u32, count: usize) -> Vec<f32> {
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(state >> 8) / f64::from(1 << 23) - 1.0) as f32
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn unit_noise(state: u32, rows: usize, dim: usize) -> Embeddings {
    let mut embeddings = Embeddings::new(dim);
    embeddings.push(&noise(state, rows * dim));
    embeddings
}

#[test]
fn hashes_are_those_of_scipys_transform() {
    for case in expected().hashes {
        let [width_px, height_px] = case.size;
        let pixel = |x: usize, y: usize| match case.kind {
            0 => [7 * x + 3 * y, x * y, 255 * ((x / 5 + y / 3) % 2)],
            kind => [x * x / (10 * kind), y * 3 + x, x * y / 40],
        };
        let pixels = (0..height_px)
            .flat_map(|y| (0..width_px).flat_map(move |x| pixel(x, y).map(|value| (value % 256) as u8)))
            .collect();
        let image = Image { width_px, height_px, pixels };
        let hash = perceptual_hash(&image, &mut Default::default());
        assert_eq!(format!("{hash:064b}"), case.hash, "{:?}", case.size);
    }
}

#[test]
fn neighbours_are_those_of_numpy() {
    let points = unit_noise(1, 5_000, 16);
    let found = neighbours_within(&points, 9, &mut |_| {});
    assert_eq!(found.len(), 5_000);
    for case in expected().neighbours {
        let rows: Vec<u32> = found.of(case.row).iter().map(|neighbour| neighbour.row).collect();
        assert_eq!(rows, case.neighbours, "row {}", case.row);
        for (neighbour, want) in found.of(case.row).iter().zip(case.cosines) {
            assert!((neighbour.cosine - want).abs() < 2e-6, "{} for {want}", neighbour.cosine);
        }
    }
}

/// Each pair is multiplied once in one way and twice in the other.
#[test]
fn neighbours_within_a_set_are_those_between_it_and_itself() {
    let points = unit_noise(5, 4_700, 24);
    let within = neighbours_within(&points, 5, &mut |_| {});
    let between = neighbours_between(&points, &points, 6);
    for row in 0..points.len() {
        let others: Vec<_> =
            between.of(row).iter().filter(|it| it.row != row as u32).take(5).copied().collect();
        assert_eq!(within.of(row), others, "row {row}");
    }
}

#[test]
fn neighbours_are_as_many_as_there_are() {
    let points = unit_noise(6, 3, 8);
    let found = neighbours_within(&points, 10, &mut |_| {});
    assert!((0..3).all(|row| found.of(row).len() == 2));
    let mut same = Embeddings::new(4);
    (0..20).for_each(|_| same.push(&[1.0, 0.0, 0.0, 0.0]));
    let found = neighbours_within(&same, 3, &mut |_| {});
    let rows = |row: usize| found.of(row).iter().map(|it| it.row).collect::<Vec<_>>();
    assert_eq!((rows(0), rows(2), rows(19)), (vec![1, 2, 3], vec![0, 1, 3], vec![0, 1, 2]));
}

/// As in `make_curate.py`: `[600, 8]`.
fn blobs() -> Vec<f32> {
    let (centres, spread) = (noise(2, 12 * 8), noise(3, 600 * 8));
    spread.iter().enumerate().map(|(at, value)| centres[at / 8 % 12 * 8 + at % 8] * 3.0 + value).collect()
}

#[test]
fn clusters_are_about_as_tight_as_those_of_scikit_learn() {
    let numbers = blobs();
    let points = Floats { numbers: &numbers, dim: 8 };
    for (clusters, want) in expected().inertia {
        // It takes the best of 20 starts, so do we of 5.
        let inertia = |seed| {
            let found = kmeans(&points, clusters, 100, seed);
            assert_eq!(found.centroids.len(), clusters * 8);
            found.distances.iter().map(|&distance| f64::from(distance)).sum::<f64>()
        };
        let got = (0..5).map(inertia).fold(f64::INFINITY, f64::min);
        assert!(got < want * 1.03, "{clusters} clusters: {got} for {want}");
        assert!(got > want * 0.97, "{clusters} clusters: {got} for {want}");
    }
}

#[test]
fn assignments_are_to_the_nearest_centroid() {
    let numbers = blobs();
    let found = kmeans(&Floats { numbers: &numbers, dim: 8 }, 30, 7, 1);
    for (point, (&cluster, &distance)) in numbers.chunks(8).zip(found.assignment.iter().zip(&found.distances))
    {
        let to = |centroid: &[f32]| point.iter().zip(centroid).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        let nearest = found.centroids.chunks(8).map(to).fold(f32::INFINITY, f32::min);
        let own = to(&found.centroids[cluster as usize * 8..][..8]);
        assert!((own - nearest).abs() < 1e-3 && (own - distance).abs() < 1e-3, "{own} {nearest} {distance}");
    }
    let all = kmeans(&Floats { numbers: &numbers[..80], dim: 8 }, 30, 7, 1);
    assert_eq!(all.centroids.len(), 80, "no more clusters than points");
    let same = kmeans(&Floats { numbers: &[1.0; 40], dim: 2 }, 4, 7, 1);
    assert!(same.distances.iter().all(|&distance| distance < 1e-6));
}

/// 3,000 points crowd in one place, 600 are spread over a region as large as eight such places.
#[test]
fn resampling_spreads_clusters_over_what_is_there() {
    let mut numbers = noise(7, 3_000 * 2);
    numbers.extend(noise(8, 600 * 2).iter().map(|value| value * 3.0 + 10.0));
    let points = Floats { numbers: &numbers, dim: 2 };
    let sparse = |resampling| {
        let options = HierarchyOptions { levels: vec![90, 9], iterations: 30, resampling, seed: 1 };
        let hierarchy = Hierarchy::build(&points, &options, &mut |_| {});
        let mut clusters = hierarchy.parents[0][3_000..].to_vec();
        clusters.sort_unstable();
        clusters.dedup();
        clusters.len()
    };
    let (plain, resampled) = (sparse(0), sparse(10));
    assert!(resampled as f64 > plain as f64 * 1.15, "{resampled} of 90 clusters, {plain} without resampling");
}

#[test]
fn hierarchies_do_not_depend_on_threads() {
    let numbers = blobs();
    let points = Floats { numbers: &numbers, dim: 8 };
    let options = HierarchyOptions { levels: vec![40, 6, 2], iterations: 10, resampling: 2, seed: 3 };
    let build = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Hierarchy::build(&points, &options, &mut |_| {}))
    };
    let (one, four) = (build(1), build(4));
    assert_eq!(one.parents, four.parents);
    assert_eq!(one.clusters, [40, 6, 2]);
    assert_eq!(one.path(17).len(), 3);
    assert_eq!(one.path(17)[2], one.parents[0][17]);
}

#[test]
fn draws_are_as_even_as_clusters_allow() {
    // Two branches: clusters of 100 and 4 points, and one of 50.
    let leaf = |point: usize| u32::from(point >= 100) + u32::from(point >= 104);
    let parents = vec![(0..154).map(leaf).collect(), vec![0, 0, 1]];
    let hierarchy = Hierarchy { parents, clusters: vec![3, 2] };
    let counts = |usable: &[bool], count: usize| {
        let drawn = draw_balanced(&hierarchy, usable, count, 9);
        assert!(
            drawn.windows(2).all(|pair| pair[0] < pair[1]) && drawn.iter().all(|&it| usable[it as usize])
        );
        [0, 1, 2].map(|cluster| drawn.iter().filter(|&&point| leaf(point as usize) == cluster).count())
    };
    let all = [true; 154];
    assert_eq!(counts(&all, 40), [16, 4, 20]);
    assert_eq!(counts(&all, 12), [3, 3, 6]);
    assert_eq!(counts(&all, 140), [86, 4, 50]);
    assert_eq!(counts(&all, 1_000), [100, 4, 50]);
    assert_eq!(counts(&all, 0), [0, 0, 0]);
    let mut usable = all;
    usable[104..].fill(false);
    usable[120] = true;
    assert_eq!(counts(&usable, 11), [6, 4, 1]);
    assert_eq!(draw_balanced(&hierarchy, &all, 40, 9), draw_balanced(&hierarchy, &all, 40, 9));
    assert_ne!(draw_balanced(&hierarchy, &all, 40, 9), draw_balanced(&hierarchy, &all, 40, 10));
}

#[test]
fn components_are_what_is_joined_by_any_way() {
    let edges: Vec<u32> = noise(11, 120).iter().map(|value| ((value + 1.0) * 75.0) as u32).collect();
    let mut components = Components::new(150);
    let mut colours: Vec<u32> = (0..150).collect();
    for edge in edges.chunks(2) {
        components.join(edge[0], edge[1]);
        let (from, to) = (colours[edge[0] as usize], colours[edge[1] as usize]);
        colours.iter_mut().filter(|colour| **colour == from).for_each(|colour| *colour = to);
    }
    for left in 0..150 {
        for right in 0..150 {
            let joined = components.root(left) == components.root(right);
            assert_eq!(joined, colours[left as usize] == colours[right as usize]);
        }
    }
}

#[test]
fn video_is_thinned_by_how_much_it_changes() {
    let mut frames = Embeddings::new(2);
    let degrees = [0.0_f32, 5.0, 12.0, 31.0, 33.0, 0.0, 1.0, 2.0];
    degrees.iter().for_each(|angle| frames.push(&[angle.to_radians().cos(), angle.to_radians().sin()]));
    let videos = [0, 0, 0, 0, 0, 1, 2, 1];
    let stands: Vec<_> = thin(&frames, &videos, 20.0_f32.to_radians().cos())
        .iter()
        .map(|thinned| thinned.map(|(of, _)| of))
        .collect();
    assert_eq!(stands, [None, Some(0), Some(0), None, Some(3), None, None, Some(5)]);
}

/// Vectors that differ little from one direction, along another one most.
#[test]
fn what_all_have_in_common_is_taken_away() {
    let mut vectors = noise(13, 300 * 12);
    for vector in vectors.chunks_exact_mut(12) {
        vector[3] *= 8.0;
        vector[5] += 20.0;
    }
    let mut embeddings = Embeddings::new(12);
    embeddings.push(&vectors);
    let all: Vec<u32> = (0..300).collect();
    let spread = |embeddings: &Embeddings| {
        let found = neighbours_between(embeddings, embeddings, 300);
        let sum: f32 = (0..300).map(|row| found.of(row).iter().map(|it| it.cosine).sum::<f32>()).sum();
        sum / 90_000.0
    };
    let setup =
        super::scan::EmbeddingSetup { model: "m".into(), precision: "Int8".into(), side_px: 28, dim: 12 };
    let common = super::common::Common::measure(&embeddings, &all, 1, &setup).unwrap().unwrap();
    let own = common.remove(&embeddings);
    assert!((common.mean_cosine() - spread(&embeddings)).abs() < 1e-3, "{}", common.mean_cosine());
    assert!(
        spread(&embeddings) > 0.8 && spread(&own).abs() < 0.02,
        "{} {}",
        spread(&embeddings),
        spread(&own)
    );
    let mut vector = [0.0; 12];
    for row in 0..300 {
        own.write(row, &mut vector);
        let length: f32 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 2e-3 && vector[3].abs() < 0.3, "{vector:?}");
    }
    assert_eq!(super::common::Common::measure(&embeddings, &all[..9], 1, &setup).unwrap(), None);
}
