//! k-means (Lloyd) on the engine's matrix kernel. Results do not depend on the number of threads.

use dinov2_kernels::gemm_f32::PackedLinear;
use dinov2_kernels::{Epilogue, Isa, Pool};
use rayon::prelude::*;

use super::points::{dot, map_blocks, squared_distance};
use super::{Points, Subset};
use crate::random::{Purpose, Random};

/// Points that are assigned at a time.
const ROWS: usize = 256;
/// Centroids of a packed matrix.
const COLUMNS: usize = 1_024;
/// Points per cluster among which the first centroids are chosen; more would cost time and gain little.
const SEEDING_SHARE: usize = 4;
/// Points among which they are chosen at least.
const SEEDING_LEAST: usize = 1 << 14;

/// Points divided into clusters.
#[derive(Clone, Debug)]
pub struct Clustering {
    /// Means of the clusters: `[clusters, dim]`.
    pub centroids: Vec<f32>,
    /// Cluster of each point: `[points]`.
    pub assignment: Vec<u32>,
    /// Squared distance of each point to its centroid: `[points]`.
    pub distances: Vec<f32>,
}

impl Clustering {
    /// The points of each cluster, in their order.
    pub fn members(&self, clusters: usize) -> Vec<Vec<u32>> {
        let mut members = vec![Vec::new(); clusters];
        for (point, &cluster) in self.assignment.iter().enumerate() {
            members[cluster as usize].push(point as u32);
        }
        members
    }
}

/// Divides points into clusters (as many as there are points, where these are fewer). The first centroids are chosen as
/// k-means++ does, on a sample of the points.
///
/// # Panics
/// If there are no points, or no clusters are wanted.
pub fn kmeans(points: &impl Points, clusters: usize, iterations: usize, seed: u64) -> Clustering {
    let mut random = Random::new(Purpose::Curation, seed, clusters as u64, 0);
    assert!(clusters > 0 && !points.is_empty(), "k-means: expected points and clusters");
    let clusters = clusters.min(points.len());
    let mut centroids = first_centroids(points, clusters, &mut random);
    let (mut assignment, mut distances) = assign(points, &centroids);
    for _ in 0..iterations {
        centroids = means(points, &assignment, clusters, &distances);
        let (next, moved) = assign(points, &centroids);
        distances = moved;
        if std::mem::replace(&mut assignment, next) == assignment {
            break;
        }
    }
    Clustering { centroids, assignment, distances }
}

/// k-means++ (Arthur and Vassilvitskii 2007): each next centroid is a point drawn with a probability that grows with its squared
/// distance to those before.
fn first_centroids(points: &impl Points, clusters: usize, random: &mut Random) -> Vec<f32> {
    let mut sample: Vec<u32> = (0..points.len() as u32).collect();
    random.shuffle(&mut sample);
    sample.truncate(clusters.saturating_mul(SEEDING_SHARE).max(SEEDING_LEAST));
    let points = Subset { points, members: &sample };
    let mut centroids = Vec::with_capacity(clusters * points.dim());
    let mut numbers = Vec::new();
    points.write_range(0..points.len(), &mut numbers);
    let mut nearest = vec![f32::INFINITY; points.len()];
    let mut chosen = random.below(points.len());
    loop {
        let centroid = &numbers[chosen * points.dim()..][..points.dim()];
        centroids.extend_from_slice(centroid);
        if centroids.len() == clusters * points.dim() {
            return centroids;
        }
        nearest.par_iter_mut().zip(numbers.par_chunks_exact(points.dim())).with_min_len(ROWS).for_each(
            |(nearest, point)| {
                *nearest = nearest.min(squared_distance(point, centroid));
            },
        );
        let total: f64 = nearest.iter().map(|&distance| f64::from(distance)).sum();
        let mut left = random.unit() * total;
        let drawn = nearest.iter().position(|&distance| {
            left -= f64::from(distance);
            left < 0.0
        });
        // All points lie on centroids already: any will do.
        chosen = drawn.unwrap_or_else(|| random.below(points.len()));
    }
}

/// The nearest centroid of each point, the first of equals, and the squared distance to it. centroids: `[clusters, dim]`.
pub(super) fn assign(points: &impl Points, centroids: &[f32]) -> (Vec<u32>, Vec<f32>) {
    let (isa, dim) = (Isa::detect(), points.dim());
    // The nearest one has the largest x·c - |c|²/2, which is a linear layer with a bias.
    let layers: Vec<_> = centroids
        .chunks(COLUMNS * dim)
        .map(|centroids| {
            let bias: Vec<f32> =
                centroids.chunks_exact(dim).map(|centroid| -0.5 * dot(centroid, centroid)).collect();
            (PackedLinear::pack(isa, centroids, &bias, dim), bias.len())
        })
        .collect();
    let blocks = map_blocks(points.len(), ROWS, |range, rows| {
        points.write_range(range.clone(), rows);
        let mut best = vec![(0, f32::NEG_INFINITY); range.len()];
        let mut scores = Vec::new();
        for (index, (layer, columns)) in layers.iter().enumerate() {
            scores.resize(range.len() * columns, 0.0);
            layer.apply(isa, &Pool::single(), Epilogue::Store, rows, &mut scores);
            for (best, scores) in best.iter_mut().zip(scores.chunks_exact(*columns)) {
                let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                if largest > best.1 {
                    let column = scores.iter().position(|&score| score == largest).unwrap_or(0);
                    *best = ((index * COLUMNS + column) as u32, largest);
                }
            }
        }
        let distance = |(row, best): (&[f32], (u32, f32))| (best.0, (dot(row, row) - 2.0 * best.1).max(0.0));
        rows.chunks_exact(dim).zip(best).map(distance).collect::<Vec<_>>()
    });
    blocks.into_iter().flatten().unzip()
}

/// Mean of each cluster. One without points moves to the point that is farthest from its own centroid.
fn means(points: &impl Points, assignment: &[u32], clusters: usize, distances: &[f32]) -> Vec<f32> {
    let dim = points.dim();
    let mut members = vec![Vec::new(); clusters];
    assignment.iter().enumerate().for_each(|(point, &cluster)| members[cluster as usize].push(point));
    let empty = members.iter().filter(|members| members.is_empty()).count();
    let mut farthest: Vec<usize> = if empty > 0 { (0..points.len()).collect() } else { Vec::new() };
    farthest.sort_by(|&left, &right| distances[right].total_cmp(&distances[left]));
    let lost = members.iter_mut().filter(|members| members.is_empty());
    lost.zip(farthest).for_each(|(members, point)| members.push(point));
    let mut centroids = vec![0.0; clusters * dim];
    centroids.par_chunks_exact_mut(dim).zip(&members).for_each_init(
        || vec![0.0; dim],
        |point, (centroid, members)| {
            for &member in members {
                points.write(member, point);
                centroid.iter_mut().zip(&*point).for_each(|(sum, value)| *sum += value);
            }
            let count = members.len() as f32;
            centroid.iter_mut().for_each(|sum| *sum /= count);
        },
    );
    centroids
}
